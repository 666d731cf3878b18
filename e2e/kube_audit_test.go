//go:build e2e

package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// written is one write that the API server carried out for the listener, according to its audit log.
type written struct {
	what     string // verb and resource[/subresource]
	name     string
	received time.Time
	answered time.Time
}

// audit reads what listeners wrote. Their version distinguishes the processes from this test's own client.
func (w *kubeWorld) audit(t *testing.T) (done []written) {
	t.Helper()
	f, err := os.Open(w.lab.AuditLog())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewReader(f); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return done // a line without its end is still being written
		}
		var e struct {
			Verb      string
			Stage     string
			UserAgent string
			URI       string `json:"requestURI"`
			ObjectRef struct{ Resource, Subresource, Name string }
			Received  time.Time                 `json:"requestReceivedTimestamp"`
			Answered  time.Time                 `json:"stageTimestamp"`
			Status    struct{ Code int }        `json:"responseStatus"`
			Request   struct{ DryRun []string } `json:"requestObject"` // of pods' deletions
		}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(e.UserAgent, "lastgasp-listener/") || e.Stage != "ResponseComplete" || e.Status.Code/100 != 2 ||
			strings.Contains(e.URI, "dryRun=All") || len(e.Request.DryRun) > 0 { // the proof of the policies writes nothing
			continue
		}
		switch e.Verb {
		case "create", "update", "patch", "delete":
			what := e.Verb + " " + e.ObjectRef.Resource
			if e.ObjectRef.Subresource != "" {
				what += "/" + e.ObjectRef.Subresource
			}
			done = append(done, written{what, e.ObjectRef.Name, e.Received, e.Answered})
		}
	}
}

// cleanedOnce returns what of d's cleanup was not done, done twice or done too early, nil if nothing.
func (d *doomed) cleanedOnce(log []written) error {
	var errs []error
	of := func(what, name string) (found []written) {
		for _, e := range log {
			if e.what == what && e.name == name {
				found = append(found, e)
			}
		}
		return found
	}
	once := func(want int, what, name string) (first, last written) {
		found := of(what, name)
		if len(found) != want {
			errs = append(errs, fmt.Errorf("%s %s: %d times, want %d", what, name, len(found), want))
		}
		if len(found) == 0 {
			return written{}, written{}
		}
		return found[0], found[len(found)-1]
	}
	fence, _ := once(2, "patch nodes", d.name) // fence and out of service
	gone, _ := once(1, "delete nodes", d.name)
	var failed time.Time
	for _, pod := range d.pods {
		first, last := once(1, "patch pods/status", pod)
		if first.received.Before(fence.answered) {
			errs = append(errs, fmt.Errorf("pod %s was failed before its node was fenced", pod))
		}
		if last.answered.After(failed) {
			failed = last.answered
		}
	}
	for _, pod := range d.pods {
		first, last := once(1, "delete pods", pod)
		if first.received.Before(failed) {
			errs = append(errs, fmt.Errorf("pod %s was deleted before all had failed", pod))
		}
		if last.answered.After(gone.received) {
			errs = append(errs, fmt.Errorf("node %s was deleted before pod %s", d.name, pod))
		}
	}
	return errors.Join(errs...)
}

// notTwice returns what was done to d's pods and Node more than once, nil if nothing was.
func (d *doomed) notTwice(log []written) error {
	var errs []error
	seen := map[string]int{}
	for _, e := range log {
		once := e.what == "patch pods/status" || e.what == "delete pods" || e.what == "delete nodes"
		if !once || e.name != d.name && !slices.Contains(d.pods, e.name) {
			continue
		}
		if seen[e.what+" "+e.name]++; seen[e.what+" "+e.name] == 2 {
			errs = append(errs, fmt.Errorf("%s %s: more than once", e.what, e.name))
		}
	}
	return errors.Join(errs...)
}

// spared returns what was done to d's pods and Node after it came back, nil if nothing was. It ignores calls that had begun by
// then.
func (d *doomed) spared(log []written, back time.Time) error {
	var errs []error
	failed := map[string]int{}
	for _, e := range log {
		switch {
		case e.what == "patch pods/status" && strings.HasPrefix(e.name, d.name+"-"):
			failed[e.name]++
			if e.received.After(back) {
				errs = append(errs, fmt.Errorf("pod %s was failed after its node was back", e.name))
			}
		case e.what == "delete nodes" && e.name == d.name && e.received.After(back):
			errs = append(errs, fmt.Errorf("node %s was deleted after it was back", d.name))
		}
	}
	for _, e := range log {
		if e.what != "delete pods" || !strings.HasPrefix(e.name, d.name+"-") {
			continue
		}
		if failed[e.name]--; failed[e.name] != 0 {
			errs = append(errs, fmt.Errorf("pod %s was deleted without having been failed, or twice", e.name))
		}
	}
	for name, n := range failed {
		if n > 0 {
			errs = append(errs, fmt.Errorf("pod %s was failed and never deleted", name))
		}
	}
	return errors.Join(errs...)
}
