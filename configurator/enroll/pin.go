package enroll

// Annotations of a Node. Their value is "<boot id>:<SHA-256 of the secret>".
const (
	PinKey   = "lastgasp.dev/pin"   // written by the node itself
	ClaimKey = "lastgasp.dev/claim" // written by a listener, from a canary
)

// Pin identifies the records of one boot to a listener. The zero value means that there is no secret yet.
type Pin struct {
	Boot string // /proc/sys/kernel/random/boot_id
	Sum  string // SHA-256 of the boot's secret, hex
}

// String returns the value of the annotation.
func (p Pin) String() string {
	if p == (Pin{}) {
		return ""
	}
	return p.Boot + ":" + p.Sum
}

// node is the part of a Node that enrolment reads.
type node struct {
	Metadata struct {
		UID             string            `json:"uid"`
		ResourceVersion string            `json:"resourceVersion"`
		Annotations     map[string]string `json:"annotations"`
	} `json:"metadata"`
	Status struct {
		NodeInfo struct {
			BootID string `json:"bootID"`
		} `json:"nodeInfo"`
	} `json:"status"`
}

// standing is a Node's relation to the pin of this boot.
type standing string

const (
	absent    standing = "the Node is not registered yet"
	otherBoot standing = "the Node does not report this boot yet"
	unpinned  standing = "the Node does not carry this boot's pin"
	pinned    standing = "pinned"
)

// judge compares n with the pin; n is nil if there is no Node. A pin counts only if the Node reports its boot, so it is not
// written before this boot's kubelet has registered.
func judge(n *node, p Pin) standing {
	switch {
	case n == nil:
		return absent
	case n.Status.NodeInfo.BootID != p.Boot:
		return otherBoot
	case n.Metadata.Annotations[PinKey] != p.String():
		return unpinned
	}
	return pinned
}

// claimed reports whether a listener has claimed the pin for n, which may be nil.
func claimed(n *node, p Pin) bool {
	return n != nil && n.Status.NodeInfo.BootID == p.Boot && n.Metadata.Annotations[ClaimKey] == p.String()
}
