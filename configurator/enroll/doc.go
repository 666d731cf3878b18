// Package enroll writes this boot's pin to the node's own Node object, over TLS and with the kubelet's credentials. By the pin
// a listener recognises a dying kernel. A canary cannot replace it, because a pod that shares its node's address can send
// one. NodeRestriction lets a kubelet write only its own Node.
//
// Run reads a kubeconfig, asks the API server who it is (the answer names the Node), writes the pin, and watches the Node to
// write the pin again when it is missing or different. It never executes anything: an EKS kubeconfig names a program that
// makes a token, and this package makes that token itself. It is plain net/http and no client-go, to keep every node's binary
// small.
package enroll
