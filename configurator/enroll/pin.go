package enroll

// Annotations of a Node, and what they hold: "<boot id>:<SHA-256 of the secret>".
const (
	PinKey   = "lastgasp.dev/pin"   // written by the node itself
	ClaimKey = "lastgasp.dev/claim" // written by a listener that took a canary's word for it
)

// Pin is what a listener recognises the records of one boot by. The zero value means that there is no secret yet.
type Pin struct {
	Boot string // /proc/sys/kernel/random/boot_id
	Sum  string // SHA-256 of the boot's secret, hex
}

// String is the value of the annotation.
func (p Pin) String() string {
	if p == (Pin{}) {
		return ""
	}
	return p.Boot + ":" + p.Sum
}

// node is a Node as far as enrolment reads it.
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

// standing is how a Node stands to the pin of this boot.
type standing string

const (
	absent    standing = "the Node is not registered yet"
	otherBoot standing = "the Node does not report this boot yet"
	unpinned  standing = "the Node does not carry this boot's pin"
	pinned    standing = "pinned"
)

// judge compares n, which is nil if there is no Node, with the pin. A pin of a boot that the Node does not report counts
// for nothing, so it is not written before the kubelet of this boot has spoken.
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
