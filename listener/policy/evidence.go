package policy

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"github.com/lastgasp/lastgasp/listener/detect"
)

// NewDeath returns the NodeDeath of Node n for inc, which is believed on authority a. n is zero where no Node answered.
func NewDeath(inc detect.Incident, a detect.Authority, n Node) Death {
	boot := cmp.Or(inc.Identity.Boot, n.BootID)
	d := Death{
		Name:      DeathName(cmp.Or(n.Name, inc.Source.Addr().String()), cmp.Or(boot, n.UID)),
		Node:      n.Name,
		NodeUID:   n.UID,
		Instance:  cmp.Or(inc.Identity.Instance, n.Instance()),
		Boot:      boot,
		Time:      inc.Time,
		Source:    inc.Source,
		Evidence:  []Evidence{evidenceOf(inc)},
		Authority: a,
		NodeInfo:  n.Info(),
	}
	d.describe(inc)
	return d
}

// evidenceOf is what inc is known from, by its authority. Deaths known by other means have no incident.
func evidenceOf(inc detect.Incident) Evidence {
	if inc.Authority == detect.Cloud {
		return ByConsole
	}
	return ByNetconsole
}

// When it was known how a boot ended, as Death.Known. Recall is KnownLive ÷ all.
const (
	KnownLive  = "live"  // while its node was dead
	KnownLater = "later" // when something was left to tell of it
	NeverKnown = "never" // all that is known is that it ended
)

// Known says when it was known how the boot ended.
func (d Death) Known() string {
	has := func(e Evidence) bool { return slices.Contains(d.Evidence, e) }
	switch {
	case has(ByNetconsole), has(ByConsole) && d.Phase != Recorded:
		return KnownLive
	case has(ByConsole), has(ByPstore), has(ByKdump), has(ByWatchdog), has(ByFirmware):
		return KnownLater
	}
	return NeverKnown
}

// Best is the evidence that says most, ByNothing if there is none.
func (d Death) Best() Evidence {
	for _, e := range []Evidence{ByNetconsole, ByConsole, ByKdump, ByPstore, ByWatchdog, ByFirmware, ByCloud} {
		if slices.Contains(d.Evidence, e) {
			return e
		}
	}
	return ByNothing
}

// Wordless reports whether d is on record without its kernel's words, so that a console which has them is still worth reading.
func (d Death) Wordless() bool {
	switch d.Best() {
	case ByWatchdog, ByFirmware, ByCloud, ByNothing:
		return d.Phase == Recorded
	}
	return false
}

// OnlyRecorded reports whether nothing can follow from d, because it was known only when its boot was over.
func (d Death) OnlyRecorded() bool {
	best := d.Best()
	return len(d.Evidence) > 0 && best != ByNetconsole && best != ByConsole
}

// Lengthen describes d by inc, a later emission of the same incident, if that has a longer trace. It reports whether it has.
func (d *Death) Lengthen(inc detect.Incident) bool {
	if len(inc.Trace) <= len(d.Trace) {
		return false
	}
	d.describe(inc)
	return true
}

func (d *Death) describe(inc detect.Incident) {
	d.Cause, d.Reason, d.Fingerprint = inc.Cause, inc.Title, inc.Fingerprint
	d.Remedy, d.Release, d.Trace = inc.Remedy, inc.Release, inc.Trace
	if c := inc.Culprit; c.Comm != "" {
		d.Culprit = &Culprit{
			Comm: c.Comm, PID: c.PID, CPU: c.CPU, Cgroup: c.Cgroup, PodUID: podOf(c.Cgroup), Bystander: c.Bystander,
		}
	}
}

// podCgroup is the part of a cgroup's path that names a pod, as the kubelet's two drivers write it (kubernetes
// pkg/kubelet/cm: cgroupfs has the UID as it is, systemd has underscores for its hyphens).
var podCgroup = regexp.MustCompile(`pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})\b`)

// podOf is the UID of the pod that a cgroup belongs to, empty if it names none.
func podOf(cgroup string) string {
	m := podCgroup.FindStringSubmatch(cgroup)
	if m == nil {
		return ""
	}
	return strings.ReplaceAll(m[1], "_", "-")
}

// Info is what kind of machine n is, by the well-known labels
// (https://kubernetes.io/docs/reference/labels-annotations-taints/) and those of Karpenter, EKS, GKE and kOps that name a
// group of nodes.
func (n Node) Info() NodeInfo {
	info := NodeInfo{
		InstanceType: n.Labels["node.kubernetes.io/instance-type"],
		Zone:         n.Labels["topology.kubernetes.io/zone"],
		Image:        n.OSImage,
	}
	for _, l := range NodePoolLabels() {
		info.NodePool = cmp.Or(info.NodePool, n.Labels[l])
	}
	return info
}

// NodePoolLabels are the labels that name a group of nodes; the first that is there counts.
func NodePoolLabels() []string {
	return []string{
		"karpenter.sh/nodepool", "eks.amazonaws.com/nodegroup", "cloud.google.com/gke-nodepool", "kops.k8s.io/instancegroup",
	}
}

// NamePods names the pods that were on the node when it died. It is called once. Those that had ended before come last: there may be any
// number of them.
func (d *Death) NamePods(pods []Pod) {
	var there, ended []Pod
	for _, p := range pods {
		if p.Finished() && p.Death != d.Name {
			ended = append(ended, p)
		} else {
			there = append(there, p)
		}
	}
	pods = slices.Concat(there, ended)
	images := map[string]int{}
	for i, p := range pods {
		if i == MaxPods {
			d.PodsOmitted = len(pods) - MaxPods
			return
		}
		dead := DeadPod{Namespace: p.Namespace, Name: p.Name, UID: p.UID, OwnerKind: p.Owner.Kind, OwnerName: p.Owner.Name}
		for _, image := range p.Images {
			at, known := images[image]
			if !known {
				at = len(d.Images)
				images[image] = at
				d.Images = append(d.Images, image)
			}
			dead.Images = append(dead.Images, at)
		}
		d.Pods = append(d.Pods, dead)
	}
}

// SetOutcome sets d's outcomes from became, which has what became of each pod by its UID. Pods that d does not name are
// left out.
func (d *Death) SetOutcome(became map[string]string) {
	byWhat := map[string][]int{}
	for i, p := range d.Pods {
		if what := became[p.UID]; what != "" {
			byWhat[what] = append(byWhat[what], i)
		}
	}
	d.Outcomes = nil
	for _, what := range []string{PodFailed, PodDeleted, PodGone, PodDenied, PodFull, PodMirror, PodLeft} {
		if pods := byWhat[what]; len(pods) > 0 {
			d.Outcomes = append(d.Outcomes, Outcome{What: what, Pods: slices.Clip(pods)})
		}
	}
}
