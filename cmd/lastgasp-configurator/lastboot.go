package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/lastgasp/lastgasp/configurator"
	"github.com/lastgasp/lastgasp/configurator/lastboot"
	"github.com/lastgasp/lastgasp/configurator/machine"
)

func (c *command) lastBoot() *cobra.Command {
	var ending bool
	cmd := &cobra.Command{
		Use:   "last-boot",
		Short: "Say how the previous boot of this machine ended",
		Long: `Says whether a shutdown ended the previous boot or what killed it, how that is known, and what its kernel wrote down last:
in pstore (also where systemd-pstore moved it), in the log that kdump saved, in a watchdog's bootstatus, or in the firmware's
record of hardware errors. It changes nothing. apply and watch look at the same once per boot, and watch sends the outcome to
the listeners until one acknowledges it.

A boot is known only from its first apply on. What belongs to another machine, as in an image or on a copied volume, is left
out. Run it as root: the kernel's log is not for everybody.`,
		Example: `  sudo lastgasp-configurator last-boot
  sudo lastgasp-configurator last-boot -o json | jq -r .text     all that the old kernel wrote down`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ending {
				return lastboot.MarkEnding(machine.Root("/"), time.Now())
			}
			l, err := configurator.New(configurator.DefaultConfig(), version, c.log()).LastBoot(cmd.Context())
			if errors.Is(err, os.ErrPermission) {
				return fmt.Errorf("%w; run it as root", err)
			}
			printErr := c.print(l.Previous, func(w io.Writer) error {
				if l.Previous == nil {
					_, err := fmt.Fprintln(w, "no previous boot of this machine is on record")
					return err
				}
				return l.Previous.WriteText(w)
			})
			return errors.Join(err, printErr)
		},
	}
	cmd.Flags().BoolVar(&ending, "ending", false, "note that a shutdown ends this boot; only lastgasp-configurator-boot-end.service does that")
	return cmd
}
