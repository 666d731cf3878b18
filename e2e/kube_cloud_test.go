//go:build e2e

package e2e

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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
	w.nameMachines(t)
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

	r := w.startReplica(t, bin, "", "ec2: {afterPanic: terminate}\n")
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
	record := w.awaitPhase(t, dying, r, policy.Cleaned)
	if got, want := record.Step(policy.StepInstance).Note, "asked to terminate "+dying.instance; got != want {
		t.Errorf("the step says %q, want %q", got, want)
	}
	for d, want := range map[*doomed]string{dying: "terminated", bystander: "running", impostor: "running"} {
		if got := stateOf(t, moto, d.instance); got != want {
			t.Errorf("the instance of %s is %s, want %s", d.name, got, want)
		}
	}
	t.Run("an Auto Scaling group is told", func(t *testing.T) { w.checkReplaced(t, bin, moto) })
}

// nameMachines has every Node say which machine it is: while one does not, it may be any instance, and none is touched.
func (w *kubeWorld) nameMachines(t *testing.T) {
	nodes := must(w.admin.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{}))
	for _, n := range nodes.Items {
		if n.Spec.ProviderID == "" {
			if err := patchNode(t.Context(), w.admin, n.Name, fmt.Sprintf(`{"spec":{"providerID":"aws:///zone/i-of-%s"}}`, n.Name))(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// checkReplaced has the listener tell an Auto Scaling group that one of its instances is unhealthy.
func (w *kubeWorld) checkReplaced(t *testing.T, bin string, moto *cloud.Moto) {
	ask := func(form url.Values) string { return askAWS(t, moto, "autoscaling", "2011-01-01", form) }
	ask(url.Values{"Action": {"CreateLaunchConfiguration"}, "LaunchConfigurationName": {"nodes"}, "ImageId": {"ami-12345678"}, "InstanceType": {"m5.large"}})
	ask(url.Values{
		"Action": {"CreateAutoScalingGroup"}, "AutoScalingGroupName": {"nodes"}, "LaunchConfigurationName": {"nodes"},
		"MinSize": {"2"}, "MaxSize": {"2"}, "AvailabilityZones.member.1": {"eu-west-1a"},
	})
	health := func() map[string]string {
		of := map[string]string{}
		text := ask(url.Values{"Action": {"DescribeAutoScalingInstances"}})
		for member := range strings.SplitSeq(text, "</member>") {
			id := regexp.MustCompile(`<InstanceId>(i-[0-9a-f]+)<`).FindStringSubmatch(member)
			status := regexp.MustCompile(`<HealthStatus>(\w+)<`).FindStringSubmatch(member)
			if id != nil && status != nil {
				of[id[1]] = strings.ToLower(status[1])
			}
		}
		if len(of) != 2 {
			t.Fatalf("DescribeAutoScalingInstances answered %s", text)
		}
		return of
	}
	ids := slices.Sorted(maps.Keys(health()))
	d := newDoomed("grouped", 4)
	d.instance = ids[0]
	w.join(t, d)
	r := w.startReplica(t, bin, "", "ec2: {afterPanic: unhealthy}\n")
	eventually(t, "the listener to know the node", func() error { return r.knows(w, d.name) })
	if err := d.panics(w, r); err != nil {
		t.Fatal(err)
	}
	if got, want := w.awaitPhase(t, d, r, policy.Cleaned).Step(policy.StepInstance).Note, "asked to set "+d.instance+" unhealthy"; got != want {
		t.Errorf("the step says %q, want %q", got, want)
	}
	if diff := cmp.Diff(map[string]string{ids[0]: "unhealthy", ids[1]: "healthy"}, health()); diff != "" {
		t.Errorf("health in the group (-want +got):\n%s", diff)
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
