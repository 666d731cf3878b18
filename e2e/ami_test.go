//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lastgasp/lastgasp/e2e/cloud"
	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/e2e/story"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// TestAMI plays an operator who installs the package on Monday and forgets it by Tuesday: an image with our .deb in it boots
// as an EC2 instance, finds the listener in SSM as user-data says, switches when it moves, and is heard when it dies.
// Everything but AWS is Debian's own; AWS is played by stand-ins.
func TestAMI(t *testing.T) {
	w, err := story.NewWorld(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	a := &amiWorld{World: w, parameters: startParameters(t, w.Net), former: startFormer(t, w), debs: buildDebs(t)}

	t.Run("Debian 13", func(t *testing.T) {
		disk := a.disk(t, "trixie")
		t.Run("the story", func(t *testing.T) {
			a.parameters.put(t, a.former.addr.String())
			n := a.boot(t, bootSpec{name: "trixie", ip: netip.MustParseAddr("10.77.1.31"), disk: disk})
			n.wantHealthy(t)
			victims := a.populate(t, n)
			a.move(t, n)
			a.kill(t, n, victims, "pinned")
		})
		t.Run("the same disk as another instance, without SSM and with garbage for user-data", func(t *testing.T) {
			a.parameters.stop()
			n := a.boot(t, bootSpec{
				name: "other", ip: netip.MustParseAddr("10.77.1.32"), disk: disk, userData: []byte("\x01\xff{{{ garbage"),
				append: []string{"systemd.mask=kubelet.service"}, // its credentials are the former instance's
			})
			n.wantUnharmed(t)
			n.wantStatus(t, "ssm: ", "last known good: /var/lib/lastgasp/endpoints.json is of another machine (i-")
			if armed := n.sh(t, "ls "+configfs); armed != "" {
				t.Errorf("armed without knowing where to: %s", armed)
			}
			a.parameters.start(t)
			a.parameters.put(t, a.former.addr.String())
			n.sh(t, "for i in 1 2 3 4 5 6; do systemctl restart lastgasp-configurator && exit; sleep 5; done; exit 1")
			a.former.await(t, "its canary", n.isCanary)
		})
	})
	t.Run("Debian 12", func(t *testing.T) {
		a.parameters.put(t, a.former.addr.String())
		n := a.boot(t, bootSpec{name: "bookworm", ip: netip.MustParseAddr("10.77.1.33"), disk: a.disk(t, "bookworm")})
		n.wantHealthy(t)
		victims := a.populate(t, n)
		for _, broken := range brokenWorlds {
			t.Run(broken.name, func(t *testing.T) { broken.try(t, n) })
		}
		t.Run("seven restarts in a row", n.wantRestartable)
		a.move(t, n)
		a.kill(t, n, victims, "kernel") // 6.1 has no userdata: the witness must agree
	})
}

// amiWorld is the story's world with AWS in it, and a listener that is about to move away.
type amiWorld struct {
	*story.World
	parameters *parameters
	former     *former
	debs       []string // paths of our packages
	endpoint   string   // the variable that names the listener; default: the two parameters
}

// disk makes the disk of a machine from an image with our packages in it.
func (a *amiWorld) disk(t *testing.T, suite string) *lab.Disk {
	t.Helper()
	disk, err := cloud.BuildImage(t.Context(), t, cloud.ImageSpec{
		Suite: suite, Debs: a.debs, Kubelet: a.Cluster.HollowProgram(),
		Environment: "AWS_ENDPOINT_URL_SSM=" + a.parameters.moto.URL + "\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	return disk
}

// populate makes the machine's Node, which registers itself, run every kind of workload.
func (a *amiWorld) populate(t *testing.T, n *amiNode) []corev1.Pod {
	t.Helper()
	if err := a.Cluster.AwaitNode(t.Context(), n.Name, n.BootID, time.Time{}); err != nil {
		t.Fatal(err)
	}
	node, err := a.Cluster.Client().CoreV1().Nodes().Get(t.Context(), n.Name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if want := "aws:///" + zone + "/" + n.instance.ID; node.Spec.ProviderID != want {
		t.Errorf("providerID is %s, want %s", node.Spec.ProviderID, want)
	}
	victims, err := a.Deploy(t.Context(), n.Namespace, n.Name)
	if err != nil {
		t.Fatal(err)
	}
	return victims
}

// move makes the parameter name the world's own listener instead of the former one, and reloads, while the kernel logs one
// record after another. None may be lost.
func (a *amiWorld) move(t *testing.T, n *amiNode) {
	t.Helper()
	numbers := "lastgasp-e2e: number of " + n.Name + " " // the listeners have heard others before
	if err := n.VM.Start(t.Context(), "sh", "-c", `i=0 last=
		while [ $i -lt 5000 ] && [ -z "$last" ]; do
			if [ -e /run/enough ]; then last=yes; fi
			echo "<4>`+numbers+`$i" >/dev/kmsg; i=$((i+1)); sleep 0.05
		done
		echo $i >/run/numbers.new; mv /run/numbers.new /run/numbers`); err != nil {
		t.Fatal(err)
	}
	a.former.await(t, "ten records", func(r heardRecord) bool { return r.Text == numbers+"9" })
	a.parameters.put(t, a.Endpoint())
	t.Logf("reload: %s", n.sh(t, "systemctl reload lastgasp-configurator && systemctl status lastgasp-configurator | tail -n5"))

	// The watch service knows only the former listener for an hour, but notices that somebody has changed the targets.
	proofs := make(map[string]bool)
	latter := heard{a.Records}
	latter.await(t, "the second canary", func(r heardRecord) bool {
		if canary, ok := netconsole.ParseCanary(r.Text); ok && n.isCanary(r) {
			proofs[canary.Nonce] = true
		}
		return len(proofs) > 1
	})
	only := "lastgasp-" + lab.ListenerAddr.Addr().String() + "-1"
	n.sh(t, `for i in $(seq 3000); do [ "$(ls `+configfs+`)" = `+only+` ] && exit; sleep 0.1; done; ls `+configfs+`; exit 1`)

	// One more record follows.
	var count int
	if _, err := fmt.Sscan(n.sh(t, "touch /run/enough; until [ -e /run/numbers ]; do sleep 0.1; done; cat /run/numbers"), &count); err != nil {
		t.Fatal(err)
	}
	latter.await(t, "the last record", func(r heardRecord) bool { return r.Text == fmt.Sprint(numbers, count-1) })

	received := make(map[string]int)
	for _, record := range a.former.read(t) {
		received[record.Text] |= 1
	}
	for _, record := range latter.read(t) {
		received[record.Text] |= 2
	}
	var by [4]int
	var lost []int
	for i := range count {
		heard := received[fmt.Sprint(numbers, i)]
		by[heard]++
		if heard == 0 {
			lost = append(lost, i)
		}
	}
	if len(lost) > 0 || by[1] == 0 || by[2] == 0 {
		t.Errorf("of %d records %v were lost; %d came only to the former listener, %d only to the latter\n%s",
			count, lost, by[1], by[2], n.sh(t, "dmesg | tail -n 80"))
	}
	t.Logf("%d records: %d to the former listener, %d to both, %d to the latter", count, by[1], by[3], by[2])
}

// kill panics the machine's kernel and expects the whole story.
func (a *amiWorld) kill(t *testing.T, n *amiNode, victims []corev1.Pod, authority string) {
	t.Helper()
	witness := a.AwaitLease
	if authority == "pinned" {
		witness = a.AwaitPin
	}
	if err := witness(t.Context(), &n.Node); err != nil {
		t.Fatal(err)
	}
	death, err := a.Kill(t.Context(), &n.Node, lab.CrashSysrq, victims, 2*busy)
	if err != nil {
		a.Explain(t)
		records := heard{a.Records}.read(t)
		t.Fatalf("%v; the last of %d records heard: %+v", err, len(records), records[max(0, len(records)-5):])
	}
	if err := death.Check(); err != nil {
		t.Error(err)
	}
	spec := death.NodeDeath.Spec
	if spec.Authority != authority || spec.Boot != n.BootID || !strings.Contains(spec.Reason, "sysrq triggered crash") {
		t.Errorf("recorded authority %s, boot %s, reason %q", spec.Authority, spec.Boot, spec.Reason)
	}
	t.Logf("fenced after %v, pods failed after %v, replaced after %v, node gone after %v",
		death.Fenced.Sub(death.Heard), death.PodsFailed.Sub(death.Heard), death.Replaced.Sub(death.Heard), death.NodeGone.Sub(death.Heard))
}
