package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/lastgasp/lastgasp/listener"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

func nodesCommand(configFile *string) *cobra.Command {
	var admin, output string
	c := &cobra.Command{
		Use:   "nodes",
		Short: "list which nodes could be heard dying",
		Long: `nodes asks a running listener which nodes it could hear dying.

  covered   its canary arrived recently, and its kernel would be heard
  mute      its canary says that its panic would not be heard, and why
  silent    its canaries have stopped
  unproven  a node of the cluster that has never sent a canary
  stranger  its canary arrived, but its sender is not a node of the cluster: nothing would be done about its death

Replicas of one cluster exchange every minute what they have heard, so all of them say the same.`,
		Example: `  lastgasp-listener nodes                               # ask the listener of this machine's config
  kubectl -n lastgasp exec deploy/listener -- lastgasp-listener nodes --admin=127.0.0.1:9666
  lastgasp-listener nodes -o json | jq -r '.[] | select(.cover != "covered") | .node'`,
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
				return fmt.Errorf("ask the listener at %s: %w; check that it is running and that this is its admin address", admin, err)
			}
			if output == "json" {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(rows)
			}
			return printNodes(cmd.OutOrStdout(), rows, time.Now())
		},
	}
	c.Flags().StringVar(&admin, "admin", "", "admin address of the listener (default: the config's)")
	c.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	complete(c, "output", "table", "json")
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
	if err := json.NewDecoder(resp.Body).Decode(&rows); err != nil {
		return nil, fmt.Errorf("read its answer: %w", err)
	}
	return rows, nil
}

func printNodes(out io.Writer, rows []listener.NodeCover, now time.Time) error {
	if len(rows) == 0 {
		_, err := fmt.Fprintln(out, "no canary has arrived yet, and no Nodes are known")
		return err
	}
	counts := make(map[listener.Cover]int)
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "NODE\tADDRESS\tCOVER\tCANARY\tKERNEL\tWHY")
	for _, r := range rows {
		counts[r.Cover]++
		node, canary := r.Node, "-"
		if node == "" {
			node = "(" + r.Instance + ")" // not a Node of the cluster
		}
		if !r.Canary.IsZero() {
			canary = now.Sub(r.Canary).Round(time.Second).String() + " ago"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", cell(node), r.Address, r.Cover, canary, cell(cmp.Or(r.Kernel, "-")), cell(r.Why))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\n%d covered, %d mute, %d silent, %d unproven, %d strangers\n",
		counts[listener.Covered], counts[listener.Mute], counts[listener.Silent], counts[listener.Unproven], counts[listener.Stranger])
	return err
}

// cell makes text that a node sent fit for a cell of a table.
func cell(s string) string { return strings.ReplaceAll(netconsole.Printable(s), "\t", " ") }
