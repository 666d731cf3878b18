package main

import (
	_ "embed"
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lastgasp/lastgasp/listener"
)

//go:embed listener.yaml
var exampleConfig string

// Set by the linker.
var (
	version = "devel"
	commit  = "unknown"
)

func command() *cobra.Command {
	var configFile string
	root := &cobra.Command{
		Use:   "lastgasp-listener",
		Short: "hear kernels die and tell Kubernetes why",
		Long: `lastgasp-listener receives the last log records of dying kernels (netconsole, UDP), finds the Kubernetes
node they came from, fences it, fails its pods with the reason, and deletes what is dead.

Exit codes: 0 done; 1 failed; 2 usage or config.`,
		Example: `  lastgasp-listener run               # listen on UDP port 6666
  lastgasp-listener nodes             # which nodes could it hear dying?
  lastgasp-listener deaths --watch    # which nodes died, and why
  dmesg | lastgasp-listener replay --format=log -`,
		Version:       fmt.Sprintf("%s (commit %s, %s)", version, commit, runtime.Version()),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q; write run, replay, nodes, deaths or uninstall", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	// No template is set on root. With one, cobra would link text/template, which calls methods by name. The linker could then
	// not drop any of the AWS SDK's methods, and the binary would grow from 36 to 88 MB.
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentFlags().StringVar(&configFile, "config", listener.DefaultConfigFile, "config file")
	root.AddCommand(runCommand(&configFile), replayCommand(&configFile), nodesCommand(&configFile), deathsCommand(), uninstallCommand())
	for _, c := range root.Commands() {
		if c.Args == nil {
			c.Args = noArgs
		}
	}
	return root
}

func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unexpected argument %q", args[0])}
	}
	return nil
}

// complete makes shell completion offer these values for a flag of c.
func complete(c *cobra.Command, flag string, values ...string) {
	if err := c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // no such flag: the tests would see it
	}
}

func runCommand(configFile *string) *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use:   "run",
		Short: "run the daemon",
		Long: `run listens until SIGTERM. With kubernetes: false, the default, every incident becomes a JSON file in the directory
named by records. With kubernetes: true it is acted on as the config allows.

On SIGTERM run finishes what was just heard, for ten seconds at most; a second signal ends it at once. Deaths that are not
cleaned up by then are finished from their NodeDeath by another replica or after the next start.

The config, every key with its default:

` + indent(exampleConfig),
		Example: "  lastgasp-listener run --config /etc/lastgasp/listener.yaml\n  lastgasp-listener run --dry-run   # record what would be done, do nothing",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := listener.LoadConfig(*configFile)
			if err != nil {
				return usageError{err}
			}
			cfg.Policy.DryRun = cfg.Policy.DryRun || dryRun
			return serve(cmd.Context(), cfg)
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "record the plan of every incident and write nothing else")
	return c
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ")
}
