package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/lastgasp/lastgasp/configurator"
	"github.com/lastgasp/lastgasp/configurator/nexthop"
)

// disarmWithin is how long watch --disarm takes at most. A kubelet kills a pod 30 s after it has asked it to end.
const disarmWithin = 20 * time.Second

func (c *command) watch() *cobra.Command {
	var disarm bool
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Keep the targets right: arm again whenever something they depend on changes",
		Long: `Runs until it is stopped. If the way to a listener changes, a new pass starts within two seconds; if a target, a kernel
setting or the configuration changes, within seven. Every canary.interval it proves everything again. SIGHUP asks for a
pass that looks the listeners up again. When watch ends the targets stay armed, unless --disarm says
otherwise. It also enrols: see lastgasp-configurator enroll.

It notifies systemd with READY after the first pass in which everything was proved, and sends a one-line status.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			saveMemory()
			reload := make(chan os.Signal, 1)
			signal.Notify(reload, syscall.SIGHUP)
			defer signal.Stop(reload)
			log := c.log()
			log.Info("starting", "version", version, "config", c.configFile())
			watchdog, err := daemon.SdWatchdogEnabled(false)
			if err != nil {
				log.Warn("systemd's watchdog gets no notifications", "err", err)
			}
			w := configurator.Watcher{
				ConfigFile: c.configFile(),
				LoadConfig: c.loadComplete,
				New: func(cfg configurator.Config) *configurator.Configurator {
					node := configurator.New(cfg, version, log)
					node.Textfile = c.textfile
					return node
				},
				Changes:  nexthop.Watch,
				Path:     nexthop.Lookup,
				Reload:   reload,
				Watchdog: watchdog,
				Notify:   func(state string) { daemon.SdNotify(false, state) }, // there is nobody to tell about a failure
				Log:      log,
			}
			ctx, stop := context.WithCancel(cmd.Context())
			defer stop()
			go c.enroller().Run(ctx)
			if err = w.Run(ctx); err != nil {
				c.correctMetrics()
			}
			if disarm {
				ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), disarmWithin)
				defer cancel()
				err = errors.Join(err, c.unconfigured().Disarm(ending))
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&disarm, "disarm", false, "disarm when watch ends: for a DaemonSet, which may be deleted")
	c.metricsFlag(cmd)
	return cmd
}

// saveMemory trades some CPU for memory: every node pays for watch as long as it is up.
func saveMemory() {
	runtime.GOMAXPROCS(1)  // nothing here is worth waking a second thread for
	debug.SetGCPercent(20) // collect before there are 4 MB of garbage
	// If the kernel hands out huge pages unasked, as on Debian, each of our few pieces of memory takes a whole one. They can
	// only be refused before a program starts, so this one executes itself again; the setting survives that (prctl(2)).
	policy, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	if err != nil || !bytes.Contains(policy, []byte("[always]")) {
		return
	}
	if refused, err := unix.PrctlRetInt(unix.PR_GET_THP_DISABLE, 0, 0, 0, 0); err != nil || refused != 0 {
		return
	}
	if unix.Prctl(unix.PR_SET_THP_DISABLE, 1, 0, 0, 0) == nil {
		unix.Exec("/proc/self/exe", withoutChroot(os.Args), os.Environ()) // if that fails, go on without
	}
}

// withoutChroot is a command line without --chroot: the root is the machine's already.
func withoutChroot(args []string) []string {
	var out []string
	for i := 0; i < len(args); i++ {
		if args[i] == "--chroot" {
			i++ // its value
		} else if !strings.HasPrefix(args[i], "--chroot=") {
			out = append(out, args[i])
		}
	}
	return out
}
