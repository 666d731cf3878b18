package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/lastgasp/lastgasp/listener"
	"github.com/lastgasp/lastgasp/listener/detect"
)

// Set by the linker.
var (
	version = "devel"
	commit  = "unknown"
)

func command() *cobra.Command {
	var configFile string
	root := &cobra.Command{
		Use:   "lastgasp-listener",
		Short: "hear kernels die, and tell Kubernetes why",
		Long: `lastgasp-listener receives the last log records of dying kernels (netconsole, UDP), finds the Kubernetes
node they came from, fences it, fails its pods with the reason and deletes what is dead.

Exit codes: 0 done; 1 failed; 2 usage or config.`,
		Version:       fmt.Sprintf("%s commit %s %s", version, commit, runtime.Version()),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
	}
	root.SetVersionTemplate("lastgasp-listener {{.Version}}\n")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentFlags().StringVar(&configFile, "config", listener.DefaultConfigFile, "config file")
	root.AddCommand(runCommand(&configFile), replayCommand(), nodesCommand(&configFile))
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

func runCommand(configFile *string) *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use:   "run",
		Short: "the daemon",
		Long: `run listens until SIGTERM. Without a cluster (cluster: none, the default) every incident becomes a JSON file in
the directory named by records; with cluster: kubernetes it is acted on as the config allows.`,
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

func replayCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "replay --format=datagrams|log FILE…",
		Short: "judge a capture or a kernel log, touch nothing",
		Long: `replay gives captured datagrams or plain kernel log text the same judgement as the daemon and prints one JSON
object per incident. FILE may be - for standard input.

  --format=datagrams  one JSON object per line: {"t": seconds, "src": "ip:port", "payload_b64": "…"}
  --format=log        text as dmesg or a serial console prints it`,
		Example: "  dmesg | lastgasp-listener replay --format=log -",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError{fmt.Errorf("replay wants a FILE, or - for standard input")}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			judge := map[string]func(io.Reader, io.Writer, *detect.Config) error{
				"datagrams": listener.ReplayDatagrams, "log": listener.ReplayLog,
			}[format]
			if judge == nil {
				return usageError{fmt.Errorf("unknown --format %q; write datagrams or log", format)}
			}
			for _, name := range args {
				if err := replayFile(name, cmd.OutOrStdout(), judge); err != nil {
					return fmt.Errorf("replay %s: %w", name, err)
				}
			}
			return nil
		},
	}
	c.Flags().StringVar(&format, "format", "datagrams", "datagrams or log")
	return c
}

func replayFile(name string, out io.Writer, judge func(io.Reader, io.Writer, *detect.Config) error) error {
	in := os.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	return judge(in, out, &detect.Config{})
}

func nodesCommand(configFile *string) *cobra.Command {
	var admin, output string
	c := &cobra.Command{
		Use:   "nodes",
		Short: "who is covered, unproven, mute, silent",
		Long: `nodes asks a running listener which nodes it could hear dying.

  covered   its canary arrived lately, and its kernel would be heard
  mute      its canary says that its panic would not be heard, and why
  silent    its canaries have stopped
  unproven  a node of the cluster that never sent one`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return usageError{fmt.Errorf("unknown --output %q; write table or json", output)}
			}
			if admin == "" {
				cfg, err := listener.LoadConfig(*configFile)
				if err != nil {
					return usageError{err}
				}
				admin = cfg.Admin
			}
			rows, err := fetchNodes(admin)
			if err != nil {
				return fmt.Errorf("ask the listener at %s: %w", admin, err)
			}
			if output == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(rows)
			}
			return printNodes(cmd.OutOrStdout(), rows, time.Now())
		},
	}
	c.Flags().StringVar(&admin, "admin", "", "admin address of the listener (default: the config's)")
	c.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return c
}

func fetchNodes(admin string) ([]listener.NodeCover, error) {
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get("http://" + admin + "/nodes")
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("it answered %s", resp.Status)
	}
	var rows []listener.NodeCover
	return rows, json.NewDecoder(resp.Body).Decode(&rows)
}

func printNodes(out io.Writer, rows []listener.NodeCover, now time.Time) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "NODE\tADDRESS\tCOVER\tCANARY\tKERNEL\tWHY")
	for _, r := range rows {
		node, canary := r.Node, "-"
		if node == "" {
			node = "(" + r.Instance + ")"
		}
		if !r.Canary.IsZero() {
			canary = now.Sub(r.Canary).Round(time.Second).String() + " ago"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", node, r.Address, r.Cover, canary, r.Kernel, r.Why)
	}
	return w.Flush()
}
