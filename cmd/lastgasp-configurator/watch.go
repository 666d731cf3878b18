package main

import (
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/lastgasp/lastgasp/configurator"
	"github.com/lastgasp/lastgasp/configurator/nexthop"
)

func (c *command) watch() *cobra.Command {
	return &cobra.Command{
		Use:   "watch",
		Short: "Keep the targets true: arm anew whenever something they depend on moves",
		Long: `Runs until it is told to stop. A change of link, address, route, next hop, target or configuration leads to a new
pass within two seconds; every canary.interval everything is proved anew. SIGHUP asks for a pass that looks the listeners
up again. When it ends the targets stay armed.

To systemd it says READY after the first pass that was proved, and its status is one honest line.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			reload := make(chan os.Signal, 1)
			signal.Notify(reload, syscall.SIGHUP)
			defer signal.Stop(reload)
			// It holds next to nothing, so the heap need not wait for 4 MB of garbage: every node pays for it.
			debug.SetGCPercent(20)
			log := c.log()
			w := configurator.Watcher{
				ConfigFile: c.configFile(),
				LoadConfig: c.loadComplete,
				New:        func(cfg configurator.Config) *configurator.Configurator { return configurator.New(cfg, version, log) },
				Changes:    nexthop.Watch,
				Reload:     reload,
				Notify:     func(state string) { daemon.SdNotify(false, state) }, // there is nobody to tell of a failure
				Log:        log,
			}
			return w.Run(cmd.Context())
		},
	}
}
