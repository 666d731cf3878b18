package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/lastgasp/lastgasp/listener/kube"
	"github.com/lastgasp/lastgasp/listener/policy"
)

func uninstallCommand() *cobra.Command {
	u := kube.Uninstaller{}
	var kubeconfig string
	c := &cobra.Command{
		Use:   "uninstall",
		Short: "lift all fences and remove what was written on Nodes",
		Long: `uninstall removes from the cluster's Nodes what lastgasp has written there: fences, out-of-service taints of its own,
annotations and its condition. It is run by an administrator, before helm uninstall or kubectl delete -k removes what was
installed. It can be repeated.

The listener must be stopped first, because it would fence again; uninstall refuses while a replica is at work. It unbinds the
admission policies lastgasp-pin, lastgasp-claim and lastgasp-farewell, which let nobody else remove these annotations. Nodes
that still run lastgasp-configurator pin themselves again: remove it from them.

NodeDeaths stay, unless --records is given. The annotations of dead pods stay.`,
		Example: `  kubectl --namespace=lastgasp scale deployment listener --replicas=0
  lastgasp-listener uninstall --dry-run
  lastgasp-listener uninstall`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := personsConfig(kubeconfig)
			if err != nil {
				return err
			}
			lines := 0
			u.REST = cfg
			u.Say = func(line string) {
				lines++
				if u.DryRun {
					line = "would: " + line
				}
				fmt.Fprintln(cmd.OutOrStdout(), cell(line))
			}
			if err := u.Run(cmd.Context(), time.Now()); err != nil {
				return err
			}
			if lines == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "lastgasp has left nothing on any Node")
			}
			return nil
		},
	}
	c.Flags().StringVar(&kubeconfig, "kubeconfig", "", "kubeconfig (default: $KUBECONFIG, ~/.kube/config, or the pod's own account)")
	c.Flags().StringVarP(&u.Namespace, "namespace", "n", "lastgasp", "namespace of the listener")
	c.Flags().StringVar(&u.Condition, "condition", policy.KernelHealthy, "type of the condition on Nodes, as in listener.yaml")
	c.Flags().BoolVar(&u.Records, "records", false, "delete all NodeDeaths as well")
	c.Flags().BoolVar(&u.DryRun, "dry-run", false, "say what would be done, and do nothing")
	return c
}
