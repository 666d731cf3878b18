//go:build e2e

package e2e

import (
	"fmt"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/e2e/cloud"
	"github.com/lastgasp/lastgasp/e2e/story"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// TestKubeTerminatesTheInstance checks that after a death the Node's instance is terminated in EC2, once its pods are failed and
// its trace is on record, and no other instance is: not even that which another node claims to be.
func TestKubeTerminatesTheInstance(t *testing.T) {
	w := newReplicaWorld(t)
	bin, err := story.Build(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	moto := useMoto(t, w.ns)
	dying, bystander, impostor := newDoomed("dying", 1), newDoomed("bystander", 2), newDoomed("impostor", 3)
	ids := runInstances(t, moto, 3)
	dying.instance, bystander.instance, impostor.instance = ids[0], ids[1], ids[2]
	for _, d := range []*doomed{dying, bystander, impostor} {
		w.join(t, d)
	}
	machine := fmt.Sprintf(`{"status":{"nodeInfo":{"machineID":%q}}}`, bystander.instance)
	if err := patchNode(t.Context(), w.kubelet(t, impostor.name), impostor.name, machine, "status")(); err != nil {
		t.Fatal(err)
	}

	r := &replica{listen: netip.MustParseAddrPort("127.0.0.1:6666"), admin: "127.0.0.1:9666"}
	r.Daemon, r.log, err = story.StartListener(t.Context(), t, story.ListenerSpec{
		Binary: filepath.Join(bin, "lastgasp-listener"), NS: w.ns, Cluster: w.lab, Listen: r.listen.String(),
		Policy: "ec2: {afterPanic: terminate}\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the listener to know the nodes", func() error { return r.knows(w, dying.name) })
	lie := *impostor
	lie.instance, lie.death = bystander.instance, policy.DeathName(impostor.addr.String(), impostor.boot)
	if err := lie.panics(w, r); err != nil {
		t.Fatal(err)
	}
	w.awaitPhase(t, &lie, r, policy.Refused)
	if err := dying.panics(w, r); err != nil {
		t.Fatal(err)
	}
	var record policy.Death
	if err := within(t.Context(), time.Minute, func() error {
		record, err = w.ended(t.Context(), dying)
		return err
	}); err != nil {
		t.Fatalf("%v; the listener says:\n%s", err, r.says())
	}
	i := slices.IndexFunc(record.Steps, func(s policy.StepStatus) bool { return s.Name == policy.StepInstance })
	if record.Phase != policy.Cleaned || i < 0 || !strings.Contains(record.Steps[i].Note, "asked to terminate "+dying.instance) {
		t.Errorf("the record is %s, its steps are %+v", record.Phase, record.Steps)
	}
	for d, want := range map[*doomed]string{dying: "terminated", bystander: "running", impostor: "running"} {
		if got := stateOf(t, moto, d.instance); got != want {
			t.Errorf("the instance of %s is %s, want %s", d.name, got, want)
		}
	}
}

// runInstances starts n instances and returns their ids.
func runInstances(t *testing.T, moto *cloud.Moto, n int) []string {
	t.Helper()
	count := []string{fmt.Sprint(n)}
	text := askEC2(t, moto, url.Values{"Action": {"RunInstances"}, "ImageId": {"ami-12345678"}, "MinCount": count, "MaxCount": count})
	var ids []string
	for _, m := range regexp.MustCompile(`<instanceId>(i-[0-9a-f]+)<`).FindAllStringSubmatch(text, -1) {
		ids = append(ids, m[1])
	}
	if len(ids) != n {
		t.Fatalf("RunInstances answered %s", text)
	}
	return ids
}
