package configurator

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/configurator/endpoint"
	"github.com/lastgasp/lastgasp/configurator/enroll"
)

// DefaultConfigFile is read unless the command line names another file. Unlike that one it may be missing.
const DefaultConfigFile = "/etc/lastgasp/configurator.yaml"

// Config is the configuration: complete, validated, with defaults filled in.
type Config struct {
	Endpoint EndpointConfig
	Targets  int // how many listeners to gasp to at once
	// LocalPort is the UDP source port of the targets. The two ports below it serve replacements, so that nobody can
	// take the predecessor's acknowledgement for theirs, and the one below these is for early boot.
	LocalPort uint16
	Canary    CanaryConfig
	Panic     PanicConfig
	Enroll    EnrollConfig
}

// EndpointConfig says where the listeners are written down. The first of the three that names one wins.
type EndpointConfig struct {
	Static       []endpoint.Endpoint
	StaticOrigin string   // the file, variable or flag that Static came from
	SSM          []string // parameter names, with {region}, {az-id} and {cluster} in them
	DNS          string   // SRV record
	Cluster      string   // what {cluster} stands for
}

// CanaryConfig rules the proofs.
type CanaryConfig struct {
	Interval time.Duration // between proofs while watching
	Timeout  time.Duration // for one acknowledgement
}

// PanicConfig says which of the kernel's settings for its own death may be changed. See Settings.
type PanicConfig struct {
	Hold          bool
	Timeout       *int // seconds, nil: leave kernel.panic alone
	KdumpNotifier bool
}

// EnrollConfig says with whose credentials the own Node is pinned.
type EnrollConfig struct {
	Kubeconfig string // the kubelet's, empty: where kubelets usually have it
}

// Kubeconfigs are the files to try, in this order.
func (c EnrollConfig) Kubeconfigs() []string {
	if c.Kubeconfig != "" {
		return []string{c.Kubeconfig}
	}
	return enroll.Kubeconfigs()
}

// DefaultConfig is what stands when nothing is configured. It names no listener yet.
func DefaultConfig() Config {
	return Config{
		Targets:   2,
		LocalPort: 6665, // the kernel's own default, drivers/net/netconsole.c
		Canary:    CanaryConfig{Interval: 10 * time.Minute, Timeout: 3 * time.Second},
	}
}

// ConfigError says what is wrong with the configuration, where, and what to do, in one line.
type ConfigError struct {
	Origin string // file, variable or flag
	Line   int    // in the file, 0 if there are no lines
	Key    string // dotted, empty for the document as a whole
	Err    error
}

// Error is "file:line: key: what is wrong; what to do".
func (e *ConfigError) Error() string {
	var b strings.Builder
	b.WriteString(e.Origin)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	if e.Key != "" {
		b.WriteString(": " + e.Key)
	}
	b.WriteString(": " + strings.Join(strings.Fields(e.Err.Error()), " "))
	return b.String()
}

// Unwrap gives Err.
func (e *ConfigError) Unwrap() error { return e.Err }

// LoadConfig reads file, then the *.yaml of the directory of the same name with .d in lexical order, then LASTGASP_…
// variables of environ ("KEY=value"), then the endpoints given by flag, each over what was there before. Only the
// default file may be missing. Its errors are *ConfigError.
func LoadConfig(file string, environ, flagEndpoints []string) (Config, error) {
	c := DefaultConfig()
	files := []string{file}
	more, err := filepath.Glob(dropins(file))
	if err != nil {
		return c, &ConfigError{Origin: file, Err: errors.New("its name is no pattern for drop-ins; avoid []*?\\ in it")}
	}
	slices.Sort(more)
	for _, f := range append(files, more...) {
		data, err := readKept(f)
		if errors.Is(err, fs.ErrNotExist) && f == DefaultConfigFile {
			continue
		} else if err != nil {
			var pathErr *fs.PathError
			if errors.As(err, &pathErr) {
				err = pathErr.Err
			}
			return c, &ConfigError{Origin: f, Err: fmt.Errorf("cannot be read: %w; check --config", err)}
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

// NeedEndpoint refuses a configuration, read from file, that names no place where listeners are written down. Looking at
// what is armed does without.
func (c Config) NeedEndpoint(file string) error {
	if len(c.Endpoint.Static) > 0 || len(c.Endpoint.SSM) > 0 || c.Endpoint.DNS != "" {
		return nil
	}
	return &ConfigError{Origin: file, Key: "endpoint",
		Err: errors.New("no listener is configured; set endpoint.static, endpoint.ssm or endpoint.dns here, LASTGASP_ENDPOINT_STATIC or --endpoint")}
}

// readKept reads a file and has the disk keep it. cloud-init writes its drop-in once in an instance's life and does not
// wait for the disk: a machine that panics half a minute later would come back with an empty one, and stay mute.
func readKept(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	_ = f.Sync() // what is on no disk is not kept
	return data, err
}

// dropins is the pattern of the files that are read over file: /etc/lastgasp/configurator.d/*.yaml.
func dropins(file string) string {
	return filepath.Join(strings.TrimSuffix(file, filepath.Ext(file))+".d", "*.yaml")
}
