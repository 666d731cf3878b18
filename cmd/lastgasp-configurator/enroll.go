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
		Long: `Writes annotation lastgasp.dev/pin to this machine's own Node: the boot id and the SHA-256 of the secret that its
kernel's records carry. By it a listener knows them from forged ones and acts at once; without it a death waits for a
witness. The kubeconfig is enroll.kubeconfig, else where EKS, kubeadm, k3s and RKE2 have the kubelet's. Nothing is executed:
the token of an EKS kubeconfig is made here.

watch does the same by itself, and again whenever the Node lacks the pin. This does it once, and says why it cannot.`,
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

// enroller wires enrolment to this machine. The configuration is read whenever it is needed.
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
