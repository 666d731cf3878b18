// Package enroll writes this boot's pin to the node's own Node object, over TLS and with the kubelet's credentials. The
// pin is what a listener believes a dying kernel by: a canary proves nothing, because a pod that shares its node's address
// can send one. NodeRestriction lets a kubelet write its own Node only.
//
// Run reads a kubeconfig, asks the API server who it is (the Node's name is the answer), writes the pin, and watches the
// Node to write it again when it is missing or another. Nothing is ever executed: the token of an EKS kubeconfig, which
// names a program to run for it, is made in-process. The package is plain net/http, because every node carries it.
package enroll
