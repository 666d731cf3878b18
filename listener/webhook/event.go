package webhook

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// Types of events.
const (
	// Died: a NodeDeath was created. Its phase is Pending, mostly.
	Died = "dev.lastgasp.nodedeath.created"
	// Changed: its cleanup has ended or waits for a person: Cleaned, Incomplete, Recorded, Refused or Held.
	Changed = "dev.lastgasp.nodedeath.changed"
	// Amended: its cause or reason is known better than when that was sent, mostly because the node itself has said how it died.
	Amended = "dev.lastgasp.nodedeath.amended"
)

// Event is a CloudEvent 1.0 in structured mode (github.com/cloudevents/spec, JSON format). Its keys are an interface.
type Event struct {
	SpecVersion string    `json:"specversion"`
	ID          string    `json:"id"`     // equal for equal events, whichever replica sends them
	Source      string    `json:"source"` // /lastgasp/<cluster>
	Type        string    `json:"type"`
	Subject     string    `json:"subject"` // the NodeDeath's name
	Time        time.Time `json:"time"`    // of the death
	ContentType string    `json:"datacontenttype"`
	Data        Data      `json:"data"`
}

// Data is a NodeDeath without its trace and its list of pods, which may be large: `kubectl get nodedeath` has them.
type Data struct {
	Name        string `json:"name"`
	Node        string `json:"node,omitempty"`
	Instance    string `json:"instance,omitempty"`
	Boot        string `json:"boot,omitempty"`
	Cause       string `json:"cause"`
	Reason      string `json:"reason"`
	Fingerprint string `json:"fingerprint,omitempty"`
	Remedy      string `json:"remedy,omitempty"`
	Release     string `json:"release,omitempty"` // of the kernel
	Authority   string `json:"authority"`
	Phase       string `json:"phase"`
	Decision    string `json:"decision,omitempty"`
	Pods        int    `json:"pods"`       // to fail
	PodsFailed  int    `json:"podsFailed"` // of them
	// Before is what was sent before; Amended events have it.
	Before *Before `json:"before,omitempty"`
	// Summary is one line for people, for receivers that show one text.
	Summary string `json:"summary"`
}

// Before is what a death was known as.
type Before struct {
	Cause  string `json:"cause"`
	Reason string `json:"reason"`
}

func event(kind, cluster string, d policy.Death) Event {
	phase := d.Phase.OrPending()
	source := "/lastgasp"
	if cluster != "" {
		source += "/" + cluster
	}
	who := cmp.Or(d.Node, d.Instance)
	if d.Node == "" && d.Source.IsValid() {
		who = d.Source.Addr().String()
	}
	died := " died: "
	if phase == policy.Refused {
		died = " was said to have died: "
	}
	id := d.UID + "/" + string(phase)
	if kind == Amended {
		sum := sha256.Sum256([]byte(d.Cause + "\n" + d.Reason))
		id += "/" + hex.EncodeToString(sum[:4])
	}
	return Event{
		SpecVersion: "1.0", ID: id, Source: source, Type: kind, Subject: d.Name, Time: d.Time.UTC(),
		ContentType: "application/json",
		Data: Data{
			Name: d.Name, Node: d.Node, Instance: d.Instance, Boot: d.Boot, Cause: d.Cause, Reason: d.Reason, Fingerprint: d.Fingerprint,
			Remedy: d.Remedy, Release: d.Release, Authority: d.Authority.String(), Phase: string(phase), Decision: d.Decision,
			Pods: d.PodsTotal, PodsFailed: d.PodsFailed, Summary: who + died + d.Reason + " (" + string(phase) + ")",
		},
	}
}

func (e *Event) before(cause, reason string) {
	e.Data.Before = &Before{cause, reason}
	e.Data.Summary += "; until now it was known as: " + reason
}

func (e Event) body() []byte {
	b, err := json.Marshal(e)
	if err != nil {
		panic(err) // strings, numbers and a time of this century: it cannot fail
	}
	return b
}
