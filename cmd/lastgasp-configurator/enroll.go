package main

import (
	"fmt"
	"io"
	"sync"

	"github.com/spf13/cobra"

	"github.com/lastgasp/lastgasp/configurator"
	"github.com/lastgasp/lastgasp/configurator/ec2"
	"github.com/lastgasp/lastgasp/configurator/enroll"
	"github.com/lastgasp/lastgasp/configurator/machine"
)

func (c *command) enroll() *cobra.Command {
	return &cobra.Command{
		Use:   "enroll",
		Short: "Pin this boot to the node's own Node, with the kubelet's credentials",
		Long: `Writes the annotation lastgasp.dev/pin to this machine's own Node: the boot id and the SHA-256 of the secret that its
kernel's records carry. With the pin a listener distinguishes them from forged ones and acts at once; without it a death
waits for a witness. The kubeconfig is enroll.kubeconfig, or the kubelet's where EKS, kubeadm, k3s or RKE2 have it. Nothing is
executed: the token of an EKS kubeconfig is made by this program itself.

watch does the same by itself, and again whenever the Node lacks the pin. This command does it once, or says why it cannot.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			state, err := c.enroller().Once(cmd.Context())
			if err != nil {
				return err
			}
			return c.print(state, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "enrolled %s\n", state)
				return err
			})
		},
	}
}

// enroller wires enrolment to this machine. Each new connection reads the configuration again.
func (c *command) enroller() *enroll.Enroller {
	const root = machine.Root("/")
	return &enroll.Enroller{
		Kubeconfigs: func() ([]string, error) {
			cfg, err := c.load()
			return cfg.Enroll.Kubeconfigs(), err
		},
		Pin:       func() (enroll.Pin, error) { return configurator.Pin(root) },
		Metadata:  sync.OnceValue(func() *ec2.Client { return ec2.New("") }),
		StateFile: configurator.EnrollState(root),
		Version:   version,
		Log:       c.log(),
	}
}
