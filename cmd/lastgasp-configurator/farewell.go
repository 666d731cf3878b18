package main

import (
	"context"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/lastgasp/lastgasp/configurator/ec2"
	"github.com/lastgasp/lastgasp/configurator/farewell"
	"github.com/lastgasp/lastgasp/configurator/machine"
)

func (c *command) farewell() *cobra.Command {
	return &cobra.Command{
		Use:   "farewell",
		Short: "Wait for an orderly end of this boot, and tell the listeners who asked for it",
		Long: `Runs until it is stopped (lastgasp-farewell.service). When somebody reboots this machine or switches it off, it sends the
listeners a farewell: what was asked, by which login user, by which command. It delays the shutdown by less than a second,
until a listener has acknowledged. It also announces spot interruptions and terminations by an Auto Scaling group. On the
Node and its pods the listener writes what the node said; nothing is deleted.

Who asked is known for calls to logind: systemctl, reboot, shutdown, and programs that use D-Bus. It is not known for a power button,
for systemctl kexec before systemd 254, for init 6, and for EC2. A reboot -f ends without a farewell.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			saveMemory()
			cfg, err := c.load()
			if err != nil {
				return err
			}
			const root = machine.Root("/")
			f := farewell.Farewell{
				Root: root, Cluster: cfg.Cluster, Key: cfg.Endpoint.Key, Log: c.log(),
				Self: func() (farewell.Self, error) {
					return farewell.ReadSelf(root, cfg.Endpoint.Key != nil)
				},
				Ready: func() { daemon.SdNotify(false, daemon.SdNotifyReady) }, // there is nobody to tell about a failure
			}
			if root.OnEC2() {
				client := ec2.New("")
				f.Notices = func(ctx context.Context) (ec2.Notices, error) { return client.Notices(ctx) }
			}
			return f.Run(cmd.Context())
		},
	}
}
