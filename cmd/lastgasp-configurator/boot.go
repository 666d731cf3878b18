package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/lastgasp/lastgasp/configurator"
)

func (c *command) bootParams() *cobra.Command {
	return &cobra.Command{
		Use:   "boot-params",
		Short: "Print what makes netconsole cover early boot",
		Long: `Resolves the targets and prints them as netconsole's own parameter, at most 255 bytes, in the two forms in which the
kernel takes it. It covers the time before this program runs, and holds for as long as this machine keeps its address and
its gateway: do not bake it into an image.`,
		Example: `  lastgasp-configurator boot-params | sudo tee /etc/modprobe.d/lastgasp.conf    netconsole as a module
  linux … netconsole.netconsole='…'                                              the same on the kernel command line`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			node, err := c.arming()
			if err != nil {
				return err
			}
			draft, err := node.Draft(cmd.Context())
			if err != nil {
				return err
			}
			param, err := configurator.BootParam(draft.BootSpecs(node.Config.LocalPort))
			if param == "" {
				return err
			}
			if printErr := c.print(map[string]string{"netconsole": param}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "# On the kernel command line, quoted, because of the semicolons: netconsole.netconsole='%s'\noptions netconsole netconsole=%s\n", param, param)
				return err
			}); printErr != nil {
				return printErr
			}
			return err
		},
	}
}

func (c *command) userData() *cobra.Command {
	return &cobra.Command{
		Use:   "user-data",
		Short: "Print cloud-init user-data that configures a node like this one",
		Long: `Prints a #cloud-config that writes the effective configuration as a drop-in. cloud-init writes it before any ordinary
unit starts, so it runs nothing.`,
		Example: `  lastgasp-configurator user-data --endpoint 10.0.2.10:6666 > user-data.yaml`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := c.loadComplete()
			if err != nil {
				return err
			}
			text, err := configurator.UserData(cfg)
			if err != nil {
				return err
			}
			return c.print(map[string]string{"userData": text}, func(w io.Writer) error {
				_, err := io.WriteString(w, text)
				return err
			})
		},
	}
}
