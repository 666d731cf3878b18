package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/lastgasp/lastgasp/listener/kube"
)

func deathsCommand() *cobra.Command {
	outputs := []string{"table", "wide", "json", "yaml"}
	var kubeconfig, output string
	var follow bool
	c := &cobra.Command{
		Use:   "deaths",
		Short: "list which nodes died, why, and how far their cleanup has got",
		Long: `deaths lists the NodeDeaths of the cluster, as kubectl get nodedeaths does, oldest first. With --watch it then prints a line
whenever one is created or changes.

It reads the cluster that --kubeconfig, $KUBECONFIG or ~/.kube/config names, or the one whose pod it runs in.`,
		Example: `  lastgasp-listener deaths --watch      # beside a drill
  kubectl -n lastgasp exec deploy/listener -- lastgasp-listener deaths -o wide
  lastgasp-listener deaths -o json | jq -r '.[] | .spec.node + "\t" + .spec.reason'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains(outputs, output) {
				return usageError{fmt.Errorf("unknown --output %q; write table, wide, json or yaml", output)}
			}
			if structured := output == "json" || output == "yaml"; follow && structured {
				return usageError{errors.New("--watch prints a table; write --output table or wide")}
			}
			cfg, err := personsConfig(kubeconfig)
			if err != nil {
				return err
			}
			r, err := kube.NewDeathReader(cfg)
			if err != nil {
				return err
			}
			return printDeaths(cmd.Context(), cmd.OutOrStdout(), r, output, follow)
		},
	}
	c.Flags().StringVar(&kubeconfig, "kubeconfig", "", "kubeconfig (default: $KUBECONFIG, ~/.kube/config, or the pod's own account)")
	c.Flags().StringVarP(&output, "output", "o", "table", "table, wide, json or yaml")
	c.Flags().BoolVarP(&follow, "watch", "w", false, "print every change")
	complete(c, "output", outputs...)
	return c
}

// personsConfig is the client configuration that kubectl would use, or that of the pod it runs in.
func personsConfig(kubeconfig string) (*rest.Config, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{}).ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, usageError{errors.New("no kubeconfig is found; name one with --kubeconfig, or run this in a pod of the listener")}
	}
	if err != nil {
		return nil, usageError{fmt.Errorf("read kubeconfig: %w", err)}
	}
	cfg.UserAgent = "lastgasp-listener/" + version
	return cfg, nil
}

func printDeaths(ctx context.Context, out io.Writer, r *kube.DeathReader, output string, follow bool) error {
	switch output {
	case "json", "yaml":
		list, err := r.List(ctx)
		if err != nil {
			return err
		}
		if output == "json" {
			return json.NewEncoder(out).Encode(list)
		}
		text, err := yaml.Marshal(list)
		if err != nil {
			return err
		}
		_, err = out.Write(text)
		return err
	}
	t, err := r.Table(ctx)
	if err != nil {
		return err
	}
	columns := columnsOf(t.ColumnDefinitions, output == "wide")
	if len(t.Rows) == 0 && !follow {
		_, err := fmt.Fprintln(out, "no node has died")
		return err
	}
	if err := printRows(out, *t, columns, true); err != nil || !follow {
		return err
	}
	return r.Watch(ctx, t.ResourceVersion, func(t metav1.Table) error { return printRows(out, t, columns, false) })
}

// column is a column of a table, with its least width: the lines of a watch come one by one.
type column struct {
	at, width int
	name      string
}

func columnsOf(all []metav1.TableColumnDefinition, wide bool) []column {
	widths := map[string]int{"name": 32, "node": 26, "reason": 44, "fingerprint": 12, "phase": 10, "cause": 14, "authority": 9}
	var out []column
	for i, d := range all {
		if name := strings.ToLower(d.Name); d.Priority == 0 || wide {
			out = append(out, column{i, widths[name], strings.ToUpper(name)})
		}
	}
	return out
}

func printRows(out io.Writer, t metav1.Table, columns []column, heading bool) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	line := func(of func(column) string) {
		var cells []string
		for _, c := range columns {
			cells = append(cells, fmt.Sprintf("%-*s", c.width, of(c)))
		}
		fmt.Fprintln(w, strings.TrimRight(strings.Join(cells, "\t"), " "))
	}
	if heading {
		line(func(c column) string { return c.name })
	}
	for _, row := range t.Rows {
		line(func(c column) string {
			if c.at >= len(row.Cells) || row.Cells[c.at] == nil {
				return ""
			}
			return cell(fmt.Sprint(row.Cells[c.at]))
		})
	}
	return w.Flush()
}
