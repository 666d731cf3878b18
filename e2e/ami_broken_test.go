//go:build e2e

package e2e

import (
	"testing"
)

// brokenWorld is a fault at boot that must leave the machine unharmed. `systemctl status` must name it.
type brokenWorld struct {
	name string
	breaks,
	mends func(t *testing.T, n *amiNode)
	starts bool // all the same
	says   []string
}

// inside is a change made by a script in the machine.
func inside(script string) func(*testing.T, *amiNode) {
	return func(t *testing.T, n *amiNode) { n.sh(t, script) }
}

var brokenWorlds = []brokenWorld{
	{
		name:   "garbage in the drop-in",
		breaks: inside(`cd /etc/lastgasp/configurator.d; mv 50-user-data.yaml /run/; printf '\001\377{{{ garbage' >50-user-data.yaml`),
		mends:  inside("mv /run/50-user-data.yaml /etc/lastgasp/configurator.d/"),
		says:   []string{"/etc/lastgasp/configurator.d/50-user-data.yaml: ", "status=2"},
	},
	{
		name:   "no module",
		breaks: inside("rmmod netconsole; mv /lib/modules/$(uname -r)/kernel/drivers/net/netconsole.ko* /run/; depmod"),
		mends:  inside("mv /run/netconsole.ko* /lib/modules/$(uname -r)/kernel/drivers/net/; depmod"),
		starts: true,
		says:   []string{"MUTE: this kernel has no netconsole module: "},
	},
	{
		name:   "read-only configfs",
		breaks: inside("mount -o remount,ro /sys/kernel/config"),
		mends:  inside("mount -o remount,rw /sys/kernel/config"),
		says:   []string{"read-only file system", "status=1"},
	},
	{
		name:   "no route",
		breaks: inside("ip route add unreachable 10.77.2.0/24"),
		mends:  inside("ip route del unreachable 10.77.2.0/24"),
		says:   []string{"no route", "status=3"},
	},
	{
		name: "no IMDS, and nothing kept from before",
		breaks: func(t *testing.T, n *amiNode) {
			n.refused.Store(true)
			n.sh(t, "rm -rf /var/lib/lastgasp/*")
		},
		mends: func(_ *testing.T, n *amiNode) { n.refused.Store(false) },
		says:  []string{"ssm: ", "instance metadata", "status=3"},
	},
}

// try stops our units, so that nothing is armed, as at a boot; breaks the world; and starts them again. It resets the count
// of starts, because systemd's limit of starts within ten seconds is not what this tests.
func (b brokenWorld) try(t *testing.T, n *amiNode) {
	n.sh(t, "systemctl stop lastgasp-configurator; systemctl reset-failed lastgasp-configurator lastgasp-configurator-watch")
	b.breaks(t, n)
	if exit, said := n.try(t, "systemctl start lastgasp-configurator"); (exit == 0) != b.starts {
		t.Errorf("exit code %d: %s", exit, said)
	}
	n.wantStatus(t, b.says...)
	n.wantUnharmed(t)
	b.mends(t, n)
	n.rearm(t)
}

// rearm restarts our units until the node is armed and heard: on a busy machine a start takes longer than its unit gives it. Starts
// that failed are logged with their reasons.
func (n *amiNode) rearm(t *testing.T) {
	t.Helper()
	t.Logf("rearmed: %s", n.sh(t, `for i in 1 2 3 4 5 6; do
		systemctl restart lastgasp-configurator lastgasp-configurator-watch && lastgasp-configurator status && exit
		systemctl show -p Result -p ExecMainStatus -p StatusText lastgasp-configurator
		sleep 5
	done
	exit 1`))
}

// wantRestartable checks that a node is armed after its units were restarted more often than systemd's default allows (five
// times in ten seconds).
func (n *amiNode) wantRestartable(t *testing.T) {
	t.Helper()
	n.sh(t, `systemctl reset-failed
		for i in 1 2 3 4 5 6 7; do
			systemctl restart lastgasp-configurator lastgasp-configurator-watch lastgasp-listener ||
				! systemctl show --value -p Result 'lastgasp-*' | grep start-limit-hit || exit 1
		done`)
	n.rearm(t)
	n.sh(t, "systemctl is-active lastgasp-configurator lastgasp-configurator-watch lastgasp-listener lastgasp-listener.socket")
}
