package configurator

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lastgasp/lastgasp/configurator/endpoint"
	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/listener/yamlkeys"
)

// DefaultConfigFile is read unless the command line names another file. Only the default file may be missing.
const DefaultConfigFile = "/etc/lastgasp/configurator.yaml"

// Config is the configuration: complete, validated, with defaults filled in.
type Config struct {
	// Cluster is the name of the cluster whose listeners are to hear this node. Canaries carry it, and it replaces {cluster} in
	// parameter names.
	Cluster  string
	Endpoint EndpointConfig
	Targets  int // how many listeners to send to at once
	// LocalPort is the UDP source port of the targets. The two ports below it are for replacements, so that an
	// acknowledgement for the old target is not taken for one of the new; the port below those is for early boot.
	LocalPort uint16
	Canary    CanaryConfig
	Panic     machine.Panic
	Enroll    EnrollConfig
	LastBoot  LastBootConfig
	// Queues allows room for a whole panic in the transmit queues of armed devices, see machine.QueueSettings.
	Queues bool
}

// EndpointConfig says where to look listeners up. The first of static, SSM and DNS that names one wins.
type EndpointConfig struct {
	Static       []endpoint.Endpoint
	StaticOrigin string   // the file, variable or flag that Static came from
	SSM          []string // parameter names, with {region}, {az-id} and {cluster} in them
	DNS          string   // SRV record
	// Within lists the networks that listeners may be in; empty means any. Listeners elsewhere are refused.
	Within []netip.Prefix
	// Key is the public half of the listeners' key. With a key only signed acknowledgements count, and a target carries the
	// secret of this boot only after its listener has proved itself. Nil means no key.
	Key ed25519.PublicKey
}

// CanaryConfig is how often targets are proved, and how.
type CanaryConfig struct {
	Interval time.Duration // between proofs while watching
	Timeout  time.Duration // for one acknowledgement
}

// DefaultConfig returns the defaults. They name no listener.
func DefaultConfig() Config {
	return Config{
		Targets:   2,
		LocalPort: 6665, // the kernel's own default, drivers/net/netconsole.c
		Canary:    CanaryConfig{Interval: 10 * time.Minute, Timeout: 3 * time.Second},
		Queues:    true,
	}
}

// ConfigError says what is wrong with the configuration, where, and what to do, in one line.
type ConfigError = yamlkeys.Error

// LoadConfig reads file, then the *.yaml and *.yml of the directory of the same name with .d in lexical order, then LASTGASP_…
// variables of environ ("KEY=value"), then the endpoints given by flag. Later values replace earlier ones. Only the
// default file may be missing. Errors are *ConfigError.
func LoadConfig(file string, environ, flagEndpoints []string) (Config, error) {
	c := DefaultConfig()
	more, err := dropins(file)
	if err != nil {
		return c, err
	}
	for _, f := range append([]string{file}, more...) {
		data, err := readDurably(f)
		if errors.Is(err, fs.ErrNotExist) && f == DefaultConfigFile {
			continue
		} else if err != nil {
			return c, &ConfigError{Origin: f, Err: fmt.Errorf("cannot be read: %w; check --config", bare(err))}
		}
		if err := c.merge(f, data); err != nil {
			return c, err
		}
	}
	if err := c.mergeEnviron(environ); err != nil {
		return c, err
	}
	if len(flagEndpoints) > 0 {
		list, err := endpoint.ParseList(strings.Join(flagEndpoints, ","))
		if err != nil {
			return c, &ConfigError{Origin: "flag --endpoint", Err: err}
		}
		c.Endpoint.Static, c.Endpoint.StaticOrigin = list, "flag --endpoint"
	}
	return c, nil
}

// NeedEndpoint refuses a configuration, read from file, that does not say where to look listeners up. Commands that only
// look at what is armed need none.
func (c Config) NeedEndpoint(file string) error {
	if len(c.Endpoint.Static) > 0 || len(c.Endpoint.SSM) > 0 || c.Endpoint.DNS != "" {
		return nil
	}
	return &ConfigError{Origin: file, Key: "endpoint",
		Err: errors.New("no listener is configured; set endpoint.static, endpoint.ssm or endpoint.dns here, LASTGASP_ENDPOINT_STATIC or --endpoint")}
}

// largestConfig is how many bytes a configuration file may have: what a link leads to may be endless.
const largestConfig = 256 << 10

// readDurably reads a file and flushes it to disk. cloud-init writes its drop-in only once per instance and does not wait for
// the disk: a machine that panics half a minute later would come back with an empty file, and stay mute.
func readDurably(name string) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a named pipe would be waited for, for ever
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, largestConfig+1))
	if info, statErr := f.Stat(); err == nil && statErr == nil && len(data) == 0 && info.Mode()&fs.ModeNamedPipe != 0 {
		return nil, errors.New("it is a named pipe that nobody writes to; put a file there")
	}
	if len(data) > largestConfig {
		return nil, fmt.Errorf("it has more than %d KiB", largestConfig>>10)
	}
	_ = f.Sync() // fails for a file that is not on a disk
	return data, err
}

// dropins returns the files that are merged over file, in that order, such as /etc/lastgasp/configurator.d/*.yaml. Hidden files are
// an editor's.
func dropins(file string) ([]string, error) {
	dir := strings.TrimSuffix(file, filepath.Ext(file)) + ".d"
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, &ConfigError{Origin: dir, Err: fmt.Errorf("cannot be read: %w; it is the directory of drop-ins", bare(err))}
	}
	var list []string
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); (ext == ".yaml" || ext == ".yml") && !strings.HasPrefix(e.Name(), ".") {
			list = append(list, filepath.Join(dir, e.Name()))
		}
	}
	return list, nil
}

// bare removes the path from an error; the caller says which file it is about.
func bare(err error) error {
	if pathErr := (*fs.PathError)(nil); errors.As(err, &pathErr) {
		return pathErr.Err
	}
	return err
}
