package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/lastgasp/lastgasp/configurator"
	"github.com/lastgasp/lastgasp/configurator/canary"
)

func (c *command) drill() *cobra.Command {
	var cordon, yes bool
	cmd := &cobra.Command{
		Use:   "drill",
		Short: "Kill this node on purpose: verify, ask, and make its kernel panic",
		Long: `Proves that the listeners hear this node, says what is about to happen, asks for the machine's name, and makes the kernel
panic through sysrq. Everything that runs here dies with it, which is the point of a drill. It refuses on a node that is not
covered: nobody would hear it.

--cordon marks the Node unschedulable first, with the kubelet's credentials. Then it comes back cordoned, and the listener waits
for it instead of deleting the Node (node: await). Draining is left to kubectl, which respects disruption budgets; the command
is printed.`,
		Example: `  lastgasp-listener deaths --watch     on another machine, before it
  lastgasp-configurator drill
  lastgasp-configurator drill --cordon --yes`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			node, err := c.node()
			if err != nil {
				return err
			}
			proofs, err := node.Verify(cmd.Context())
			if err != nil {
				return errors.Join(configurator.WriteProofs(c.stderr, proofs), err)
			}
			status, err := node.Status(nil)
			if err != nil {
				return err
			}
			if status.Verdict != configurator.Covered {
				return fmt.Errorf("this node is %s, so a drill would prove nothing; see lastgasp-configurator status", status.Verdict)
			}
			host, err := os.Hostname()
			if err != nil {
				return fmt.Errorf("name this machine: %w", err)
			}
			if err := announceDrill(c.stdout, host, status, proofs); err != nil {
				return err
			}
			if !yes {
				if err := ask(c.stdout, cmd.InOrStdin(), host); err != nil {
					return err
				}
			}
			if cordon {
				name, err := c.enroller().Cordon(cmd.Context())
				if err != nil {
					return err
				}
				fmt.Fprintf(c.stdout, "Node %s is cordoned; afterwards: kubectl uncordon %s\n", name, name)
			}
			fmt.Fprintln(c.stdout, "the kernel panics now")
			return node.Root.Crash()
		},
	}
	cmd.Flags().BoolVar(&cordon, "cordon", false, "mark the Node unschedulable first, with the kubelet's credentials")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// announceDrill says what is about to happen to this machine.
func announceDrill(w io.Writer, host string, s configurator.Status, proofs []canary.Proof) error {
	name := host
	var b strings.Builder
	fmt.Fprintf(&b, "The kernel of %s (%s) is about to panic. Everything that runs here dies with it.\n\n", host, s.Facts.Kernel)
	for _, p := range proofs {
		fmt.Fprintf(&b, "  heard by %s, acknowledged in %s\n", p.Listener, p.RTT.Round(100*time.Microsecond))
	}
	switch e := s.Enrolment; {
	case e != nil && e.Enrolled:
		name = e.Node
		fmt.Fprintf(&b, "  pinned to Node %s: with act.at: pinned the listener acts at once\n", e.Node)
	default:
		fmt.Fprintln(&b, "  not pinned: the Node is fenced at once, and the cleanup waits for a witness, about 40 s")
	}
	switch {
	case s.Facts.Panic > 0:
		fmt.Fprintf(&b, "  kernel.panic is %d: the machine reboots %d s later\n", s.Facts.Panic, s.Facts.Panic)
	case s.Facts.Panic < 0:
		fmt.Fprintf(&b, "  kernel.panic is %d: the machine reboots at once\n", s.Facts.Panic)
	default:
		fmt.Fprintln(&b, "  kernel.panic is 0: the machine stays dead until somebody resets it")
	}
	fmt.Fprintf(&b, `
Watch it from elsewhere:     lastgasp-listener deaths --watch
To move its pods away first: kubectl drain %s --ignore-daemonsets --delete-emptydir-data
`, name)
	_, err := io.WriteString(w, b.String())
	return err
}

// ask returns nil only if the next line of in is the machine's name.
func ask(out io.Writer, in io.Reader, host string) error {
	fmt.Fprintf(out, "\nType %s to go on: ", host)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && line == "" {
		return errors.New("nobody answered; nothing was done")
	}
	if strings.TrimSpace(line) != host {
		return errors.New("that is not this machine's name; nothing was done")
	}
	return nil
}
