//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lastgasp/lastgasp/e2e/crowd"
	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/e2e/story"
	"github.com/lastgasp/lastgasp/listener/kube/v1alpha1"
)

// TestStorm makes many nodes die at once: without a limit, with an API server that pushes back, and with the default limit.
func TestStorm(t *testing.T) {
	bin, err := story.Build(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	w, err := crowd.NewWorld(t.Context(), t, lab.ClusterSpec{Audit: true})
	if err != nil {
		t.Fatal(err)
	}
	s := &stormWorld{World: w, binary: filepath.Join(bin, "lastgasp-listener")}
	if s.kernels, err = w.Kernels(t); err != nil {
		t.Fatal(err)
	}
	if s.watch, err = w.Watch(t.Context()); err != nil {
		t.Fatal(err)
	}
	// In this order: deaths of the last ten minutes count on the breaker.
	t.Run("too many are held until a human lets them go", s.held)
	t.Run("each is cleaned up once, all fenced first", s.open)
	t.Run("an API server that pushes back is obeyed", s.pushedBack)
}

type stormWorld struct {
	*crowd.World
	binary  string
	kernels *crowd.Kernels
	watch   *crowd.Watcher
}

// listen runs a listener until t ends.
func (s *stormWorld) listen(t *testing.T, policy string) {
	t.Helper()
	_, log, err := s.StartListener(t.Context(), t, s.binary, policy)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if text, err := os.ReadFile(log); err == nil && t.Failed() {
			lines := strings.Split(strings.TrimSpace(string(text)), "\n")
			t.Logf("the listener's log ends so:\n%s", strings.Join(lines[max(0, len(lines)-40):], "\n"))
		}
	})
}

// die makes a crowd, waits until the listener knows it, and makes all of it die. It returns when that began.
func (s *stormWorld) die(t *testing.T, c crowd.Crowd) time.Time {
	t.Helper()
	if err := s.Make(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if err := s.kernels.Arm(t.Context(), c, s.watch); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the listener to know the pins", func() error {
		unknown, err := s.Unknown(t.Context(), c)
		if err == nil && unknown > 0 {
			err = fmt.Errorf("%d are unknown", unknown)
		}
		return err
	})
	began := time.Now()
	if _, err := s.kernels.Panic(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return began
}

func (s *stormWorld) held(t *testing.T) {
	c := crowd.Crowd{First: 0, Nodes: 60, Pods: 10}
	const limit = 6 // ten percent
	s.listen(t, "")
	began := s.die(t, c)
	for _, node := range c.Names() {
		if _, err := s.watch.Fenced(t.Context(), node); err != nil {
			t.Fatal(err)
		}
	}
	s.awaitPhases(t, c, "Cleaned", "Held")
	var cleaned, held []string
	for node, record := range s.records(t, c) {
		if record.Status.Phase == "Held" {
			held = append(held, node)
		} else {
			cleaned = append(cleaned, node)
		}
	}
	if len(cleaned) != limit {
		t.Errorf("%d nodes were cleaned up, want %d", len(cleaned), limit)
	}
	s.untouched(t, held, began)

	// One of them comes back before anybody looks: a release allows a new judgement, it does not order a deletion.
	back := held[0]
	boot := []byte(`{"status":{"nodeInfo":{"bootID":"another"}}}`)
	if _, err := s.Admin.CoreV1().Nodes().Patch(t.Context(), back, types.StrategicMergePatchType, boot, metav1.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Cluster.Kubectl(t.Context(), "annotate", "nodedeath", "--all", v1alpha1.ReleaseAnnotation+"=true"); err != nil {
		t.Fatal(err)
	}
	s.awaitPhases(t, c, "Cleaned", "Recorded")
	for node, record := range s.records(t, c) {
		if want := map[bool]string{true: "Recorded", false: "Cleaned"}[node == back]; record.Status.Phase != want {
			t.Errorf("node %s: %s (%s), want %s", node, record.Status.Phase, record.Status.Decision, want)
		}
	}
	s.untouched(t, []string{back}, began)
	for i, node := range c.Names() {
		if node != back {
			s.once(t, c.Part(i, 1))
		}
	}
}

// untouched checks that of these nodes nothing was failed and nothing deleted.
func (s *stormWorld) untouched(t *testing.T, nodes []string, since time.Time) {
	t.Helper()
	for _, e := range s.audit(t) {
		if e.received.Before(since) || e.what == "patch nodes" || strings.HasSuffix(e.what, "nodedeaths") || strings.HasSuffix(e.what, "nodedeaths/status") {
			continue
		}
		for _, node := range nodes {
			if e.name == node || strings.HasPrefix(e.name, node+"-") {
				t.Errorf("%s %s", e.what, e.name)
			}
		}
	}
}

func (s *stormWorld) open(t *testing.T) {
	c := crowd.Crowd{First: 100, Nodes: 60, Pods: 10}
	s.listen(t, "limits: {nodes: 1000}")
	began := s.die(t, c)
	sent := time.Now()
	if _, err := s.watch.Gone(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	s.awaitPhases(t, c, "Cleaned")
	s.once(t, c)

	// All nodes are fenced before the first of their pods is written, except for pods written before the last panic was sent.
	var fenced time.Time
	var patched []time.Time
	writes := map[string]int{}
	for _, e := range s.audit(t) {
		if e.received.Before(began) {
			continue
		}
		writes[e.what]++
		switch {
		case e.what == "patch nodes" && e.received.After(fenced):
			fenced = e.received
		case e.what == "patch pods/status" && e.received.After(sent):
			patched = append(patched, e.received)
		}
	}
	slices.SortFunc(patched, time.Time.Compare)
	early, _ := slices.BinarySearchFunc(patched, fenced, time.Time.Compare)
	t.Logf("%d nodes with %d pods took these writes: %v", c.Nodes, c.Size(), writes)
	if early > c.Size()/10 {
		t.Errorf("%d of %d pods were written after the last panic and before the last fence", early, c.Size())
	}
}

func (s *stormWorld) pushedBack(t *testing.T) {
	c := crowd.Crowd{First: 200, Nodes: 20, Pods: 10}
	s.listen(t, "limits: {nodes: 1000}")
	s.pushBack(t)
	began := s.die(t, c)
	if _, err := s.watch.Gone(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	s.awaitPhases(t, c, "Cleaned")
	s.once(t, c)
	rejected, most := s.rejected(t), 32*(1+int(time.Since(began).Seconds()))
	t.Logf("%d requests were told to come again a second later", rejected)
	if rejected == 0 {
		t.Error("no request was rejected: the test proves nothing")
	}
	// 32 calls are in flight at a time, and each waits a second (Retry-After) before it comes again.
	if rejected > most {
		t.Errorf("%d requests were rejected, want %d at most: they came again too early", rejected, most)
	}
}

// pushBack makes the API server serve three of the listener's requests at a time and answer all others with 429.
func (s *stormWorld) pushBack(t *testing.T) {
	t.Helper()
	level := &flowcontrolv1.PriorityLevelConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "storm"},
		Spec: flowcontrolv1.PriorityLevelConfigurationSpec{
			Type: flowcontrolv1.PriorityLevelEnablementLimited,
			Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{
				NominalConcurrencyShares: ptr(int32(1)), BorrowingLimitPercent: ptr(int32(0)),
				LimitResponse: flowcontrolv1.LimitResponse{Type: flowcontrolv1.LimitResponseTypeReject},
			},
		},
	}
	schema := &flowcontrolv1.FlowSchema{
		ObjectMeta: metav1.ObjectMeta{Name: "storm"},
		Spec: flowcontrolv1.FlowSchemaSpec{
			MatchingPrecedence:         500, // before the one we ship
			PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: "storm"},
			Rules: []flowcontrolv1.PolicyRulesWithSubjects{{
				Subjects: []flowcontrolv1.Subject{{
					Kind:           flowcontrolv1.SubjectKindServiceAccount,
					ServiceAccount: &flowcontrolv1.ServiceAccountSubject{Namespace: "lastgasp", Name: "listener"},
				}},
				ResourceRules: []flowcontrolv1.ResourcePolicyRule{{
					Verbs: []string{"get", "list", "create", "update", "patch", "delete"}, APIGroups: []string{"*"}, Resources: []string{"*"},
					ClusterScope: true, Namespaces: []string{"*"},
				}},
			}},
		},
	}
	api := s.Admin.FlowcontrolV1()
	if _, err := api.PriorityLevelConfigurations().Create(t.Context(), level, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.FlowSchemas().Create(t.Context(), schema, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the API server to push back", func() error {
		schema, err := api.FlowSchemas().Get(t.Context(), "storm", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, c := range schema.Status.Conditions {
			if c.Type == flowcontrolv1.FlowSchemaConditionDangling && c.Status == flowcontrolv1.ConditionFalse {
				return nil
			}
		}
		return fmt.Errorf("conditions are %v", schema.Status.Conditions)
	})
}

// rejected is how many requests the API server turned away.
func (s *stormWorld) rejected(t *testing.T) int {
	t.Helper()
	text, err := s.Admin.RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, `apiserver_flowcontrol_rejected_requests_total{flow_schema="storm"`) {
			var more int
			if _, err := fmt.Sscan(line[strings.LastIndexByte(line, ' '):], &more); err != nil {
				t.Fatal(err)
			}
			n += more
		}
	}
	return n
}

// once checks that every pod of c was failed once and deleted once and every Node deleted once.
func (s *stormWorld) once(t *testing.T, c crowd.Crowd) {
	t.Helper()
	count := map[string]int{}
	for _, e := range s.audit(t) {
		count[e.what+" "+e.name]++
	}
	want := func(what string) {
		if count[what] != 1 {
			t.Errorf("%s: %d times, want once", what, count[what])
		}
	}
	for _, pod := range c.PodNames() {
		want("patch pods/status " + pod)
		want("delete pods " + pod)
	}
	for _, node := range c.Names() {
		want("delete nodes " + node)
	}
}

func (s *stormWorld) audit(t *testing.T) []written { return (&kubeWorld{lab: s.Cluster}).audit(t) }

// records returns the NodeDeaths of c, by Node.
func (s *stormWorld) records(t *testing.T, c crowd.Crowd) map[string]v1alpha1.NodeDeath {
	t.Helper()
	out := (&kubeWorld{lab: s.Cluster}).kubectl(t, "get", "nodedeaths", "--output=json")
	var list v1alpha1.NodeDeathList
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	records, names := map[string]v1alpha1.NodeDeath{}, c.Names()
	for _, r := range list.Items {
		if slices.Contains(names, r.Spec.Node) {
			records[r.Spec.Node] = r
		}
	}
	return records
}

// awaitPhases waits until every node of c has a NodeDeath in one of these phases.
func (s *stormWorld) awaitPhases(t *testing.T, c crowd.Crowd, phases ...string) {
	t.Helper()
	eventually(t, "records to be "+strings.Join(phases, " or "), func() error {
		found := map[string]int{}
		for _, r := range s.records(t, c) {
			found[r.Status.Phase]++
		}
		n := 0
		for _, phase := range phases {
			n += found[phase]
		}
		if n != c.Nodes {
			return fmt.Errorf("phases are %v", found)
		}
		return nil
	})
}
