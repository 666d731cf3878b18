package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/lastgasp/lastgasp/configurator"
)

func (c *command) bootParams() *cobra.Command {
	return &cobra.Command{
		Use:   "boot-params",
		Short: "Print the netconsole parameter that covers early boot",
		Long: `Resolves the targets and prints them as netconsole's own parameter, at most 255 bytes, in the two forms in which the
kernel takes it. It covers the time before this program runs, and is right as long as this machine keeps its address and
its gateway: do not bake it into an image.

The double quotes on the kernel command line work with every boot loader. In GRUB, where a bare semicolon would end the
command, the shell removes them; with others (systemd-boot, EFI stub, PXE) the kernel does. The kernel does not understand
single quotes.`,
		Example: `  lastgasp-configurator boot-params | sudo tee /etc/modprobe.d/lastgasp.conf         netconsole as a module
  lastgasp-configurator boot-params -o json | jq -r .commandLine                      for the kernel command line
  GRUB_CMDLINE_LINUX='… netconsole.netconsole="…"'                                    the same in /etc/default/grub`,
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
			commandLine := configurator.CommandLine(param)
			return errors.Join(err, c.print(map[string]string{"netconsole": param, "commandLine": commandLine}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "# On the kernel command line: %s\noptions netconsole netconsole=%s\n", commandLine, param)
				return err
			}))
		},
	}
}

func (c *command) userData() *cobra.Command {
	var archive bool
	cmd := &cobra.Command{
		Use:   "user-data",
		Short: "Print cloud-init user-data that configures a node like this one",
		Long: `Prints a #cloud-config that writes the effective configuration as a drop-in. cloud-init writes it before any ordinary
unit starts, so nothing has to be run.

With --mime it is a multi-part archive, for EKS's launch templates (nodeadm) and the userData of Karpenter's EC2NodeClass,
which add a part of their own. If there are other text/cloud-config parts, put this one last: its merge_how merges its
write_files with theirs, while a later part without merge_how would replace them.`,
		Example: `  lastgasp-configurator user-data --endpoint 10.0.2.10:6666 > user-data.yaml
  lastgasp-configurator user-data --mime --endpoint '[fd00::10]:6666' > user-data.mime`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			cfg, err := c.loadComplete()
			if err != nil {
				return err
			}
			made := configurator.UserData
			if archive {
				made = configurator.UserDataMIME
			}
			text, err := made(cfg)
			if err != nil {
				return err
			}
			return c.print(map[string]string{"userData": text}, func(w io.Writer) error {
				_, err := io.WriteString(w, text)
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&archive, "mime", false, "print a MIME multi-part archive, for EKS and Karpenter")
	return cmd
}
