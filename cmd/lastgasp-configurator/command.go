package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/lastgasp/lastgasp/cmd/logger"
	"github.com/lastgasp/lastgasp/configurator"
)

// Set by the linker: -X main.version=v1.2.3 -X main.commit=0123456789ab. Otherwise the commit comes from the build
// information.
var version, commit = "devel", ""

// command is one invocation.
type command struct {
	stdout, stderr io.Writer
	environ        []string

	config    string
	endpoints []string
	output    string
	chroot    string
	textfile  string
	ran       bool // the command line was valid
}

const help = `lastgasp-configurator arms the kernel's netconsole so that lastgasp-listener hears a panic of this node: it finds the
listeners, resolves the whole tuple that a dying kernel cannot look up (device, source, next hop's hardware address),
writes it to configfs, and proves it by a canary that the listener acknowledges.

Exit codes:
  0  done
  1  failed, or a listener did not acknowledge
  2  usage or configuration
  3  listener endpoint or next hop cannot be resolved
  4  this kernel or device cannot

Configuration: the file of --config, then *.yaml in the directory of the same name ending in .d, then LASTGASP_… variables
(LASTGASP_ENDPOINT_STATIC for endpoint.static), then flags. Later ones replace earlier ones.`

const examples = `  lastgasp-configurator apply --endpoint 10.0.2.10:6666   arm and prove one listener by hand
  lastgasp-configurator apply --dry-run -o json            what would be armed
  lastgasp-configurator status                             one screen: what is armed and proved, what makes this node mute`

func (c *command) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "lastgasp-configurator",
		Short:         "Arms netconsole on this node and proves that it is heard",
		Long:          help,
		Example:       examples,
		Version:       versionLine(),
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if c.output != "text" && c.output != "json" {
				return fmt.Errorf("-o %s: unknown format; use text or json", c.output)
			}
			if err := enterRoot(c.chroot); err != nil {
				return err
			}
			c.ran = true
			return nil
		},
	}
	root.SetOut(c.stdout)
	root.SetErr(c.stderr)
	flags := root.PersistentFlags()
	flags.StringVar(&c.config, "config", configurator.DefaultConfigFile, "configuration `file`")
	flags.StringSliceVar(&c.endpoints, "endpoint", nil, "listener as `host:port`, instead of those in the configuration; may be repeated")
	flags.StringVarP(&c.output, "output", "o", "text", "output `format`: text or json")
	flags.StringVar(&c.chroot, "chroot", "", "`directory` that is the machine's root: for a container that has it mounted (packaging/kubernetes/nodes)")
	formats := cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp)
	if err := root.RegisterFlagCompletionFunc("output", formats); err != nil {
		panic(err) // no such flag: the tests would see it
	}
	root.AddCommand(c.apply(), c.watch(), c.enroll(), c.verify(), c.status(), c.lastBoot(), c.drill(), c.disarm(), c.farewell(), c.bootParams(), c.userData())
	return root
}

// enterRoot makes dir this process's root, so that all files are the machine's: its modules and modprobe, its kubelet's
// credentials, its /proc, /sys and /run. Empty leaves it where it is.
func enterRoot(dir string) error {
	if dir == "" {
		return nil
	}
	if err := unix.Chroot(dir); err != nil {
		return fmt.Errorf("--chroot %s: %w; mount the machine's root there, and run as root", dir, err)
	}
	return os.Chdir("/")
}

// versionLine returns what this binary was built from.
func versionLine() string {
	commit := commit
	if info, ok := debug.ReadBuildInfo(); ok && commit == "" {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				commit = s.Value
			}
		}
	}
	return fmt.Sprintf("%s (commit %s, %s)", version, cmp.Or(commit, "unknown"), runtime.Version())
}

func (c *command) load() (configurator.Config, error) {
	return configurator.LoadConfig(c.configFile(), c.environ, c.endpoints)
}

// loadComplete reads the configuration, and refuses one that does not say where to look listeners up.
func (c *command) loadComplete() (configurator.Config, error) {
	cfg, err := c.load()
	if err != nil {
		return cfg, err
	}
	return cfg, cfg.NeedEndpoint(c.configFile())
}

// configFile returns --config, else LASTGASP_CONFIG, else the default.
func (c *command) configFile() string {
	file := c.config
	if v := c.getenv("LASTGASP_CONFIG"); v != "" && file == configurator.DefaultConfigFile {
		file = v
	}
	return file
}

func (c *command) log() *slog.Logger { return logger.New(c.stderr, c.getenv) }

func (c *command) getenv(name string) string {
	for _, kv := range c.environ {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// print writes v to stdout: as JSON if that was asked for, otherwise with text.
func (c *command) print(v any, text func(io.Writer) error) error {
	if c.output == "json" {
		enc := json.NewEncoder(c.stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	return text(c.stdout)
}
