package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/lastgasp/lastgasp/configurator"
)

func (c *command) apply() *cobra.Command {
	var dryRun, reload bool
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Arm the targets, proved by a canary",
		Long: `Makes the kernel's targets those of the configuration: finds the listeners, resolves the way to each, arms what is
missing, and removes other targets once every wanted one has been acknowledged. A target that is right already is left
alone, so apply may be run at any time. If the network driver limits what its queues hold, the queues of the armed device
get room for a whole panic (byte_queue_limits/limit_min; status lists it, disarm restores it).

If a new target is not acknowledged, the old one stays and the exit code is 1.`,
		Example: `  lastgasp-configurator apply
  lastgasp-configurator apply --endpoint 10.0.2.10:6666 --endpoint 10.0.3.10:6666
  lastgasp-configurator apply --dry-run -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			node, err := c.arming()
			if err != nil && !dryRun {
				c.correctMetrics()
			}
			if err != nil {
				return err
			}
			if dryRun {
				draft, err := node.Draft(cmd.Context())
				view := draft.View(node.WantedSettings(draft.Devices()))
				return errors.Join(err, c.print(view, view.WriteText))
			}
			node.Textfile = c.textfile
			pass := node.Apply
			if reload {
				pass = node.Reload
			}
			state, err := pass(cmd.Context())
			err = errors.Join(err, c.print(state, func(w io.Writer) error { return configurator.WriteState(w, state) }))
			if err == nil {
				c.warn(node)
			}
			return err
		},
	}
	c.metricsFlag(cmd)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print what would be done, change nothing")
	cmd.Flags().BoolVar(&reload, "reload", false, "fail rather than fall back on the last known good listeners: for ExecReload")
	return cmd
}

func (c *command) verify() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Prove now, through the kernel, that every armed target is heard",
		Long: `Writes a canary to the kernel log and waits for each target's listener to acknowledge it: the only proof that takes
the path a panic takes. Exits 1 if a listener does not, and prints the likely reasons, the likeliest first.

What netconsole sends bypasses this node's firewall, but the firewall may drop the acknowledgement. If it accepts established
connections it lets the acknowledgement in, because a datagram is sent from the same socket first. Otherwise add a rule:

  nft add rule inet filter input udp sport 6666 udp dport 6663-6665 accept
  firewall-cmd --permanent --add-rich-rule='rule source-port port="6666" protocol="udp" accept'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			node, err := c.node()
			if err != nil {
				return err
			}
			node.Textfile = c.textfile
			proofs, err := node.Verify(cmd.Context())
			err = errors.Join(err, c.print(proofs, func(w io.Writer) error { return configurator.WriteProofs(w, proofs) }))
			if err == nil {
				c.warn(node)
			}
			return err
		},
	}
	c.metricsFlag(cmd)
	return cmd
}

func (c *command) status() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "One screen: what is armed, what is proved, what makes this node mute",
		Long: `Shows the armed targets with their whole tuple, which source named the listeners, when each last acknowledged a
canary, kernel settings that were changed, and whatever would prevent a panic from being heard, with the remedy.

Exits 0 only if the node is covered: the last pass succeeded, every wanted listener has acknowledged within the last three
canary.intervals and knows the node, and nothing makes it mute. Any user may run it.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, configErr := c.load()
			if configErr != nil { // status must still show what is armed
				cfg = configurator.DefaultConfig()
			}
			node := configurator.New(cfg, version, c.log())
			status, err := node.Status(configErr)
			if err != nil {
				return err
			}
			if err := c.print(status, func(w io.Writer) error { return status.WriteText(w, node.Uptime()) }); err != nil {
				return err
			}
			if status.Verdict != configurator.Covered {
				return errSaid
			}
			return nil
		},
	}
}

func (c *command) disarm() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "disarm",
		Short: "Remove our targets and restore every kernel setting we changed",
		Long: `Removes our targets (never anybody else's), restores kernel settings, and removes the metrics. The secret of this boot
stays under /run/lastgasp: it is pinned, and another one would not be believed before the next boot.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.unconfigured().Disarm(cmd.Context())
		},
	}
	c.metricsFlag(cmd)
	return cmd
}

// metricsFlag adds --textfile.
func (c *command) metricsFlag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.textfile, "textfile", "/var/lib/lastgasp", "`directory` for metrics.prom, for node_exporter's textfile collector; empty: none")
}

// correctMetrics writes the metrics of a node that cannot be armed because its configuration is bad. A former boot, or the machine
// that an image was made of, may have left some that call it covered.
func (c *command) correctMetrics() { c.unconfigured().WriteMetrics() }

// unconfigured is a node for what must work with a bad configuration, too.
func (c *command) unconfigured() *configurator.Configurator {
	node := configurator.New(configurator.DefaultConfig(), version, c.log())
	node.Textfile = c.textfile
	return node
}

// node reads the configuration and makes the Configurator for it.
func (c *command) node() (*configurator.Configurator, error) {
	cfg, err := c.load()
	if err != nil {
		return nil, err
	}
	return configurator.New(cfg, version, c.log()), nil
}

// arming is node for a command that has to find listeners.
func (c *command) arming() (*configurator.Configurator, error) {
	cfg, err := c.loadComplete()
	if err != nil {
		return nil, err
	}
	return configurator.New(cfg, version, c.log()), nil
}

// warn prints to stderr what makes this node mute, after a command that has succeeded: an acknowledged canary proves little on
// a mute kernel.
func (c *command) warn(node *configurator.Configurator) {
	status, err := node.Status(nil)
	if err != nil {
		return // the command has succeeded, which is what the user asked about
	}
	for _, f := range status.Findings {
		if f.Mute {
			fmt.Fprintf(c.stderr, "lastgasp-configurator: MUTE: %s\n", f)
		}
	}
}
