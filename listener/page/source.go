package page

import (
	"context"
	"errors"
	"time"

	"github.com/lastgasp/lastgasp/listener/policy"
)

// ErrNotFound is what Source.Death answers when there is no such death.
var ErrNotFound = errors.New("not found")

// Source is what is shown. It can be read and nothing else.
type Source interface {
	// Deaths lists every NodeDeath, without trace and with its pods packed. An error means that they are not known yet.
	Deaths(ctx context.Context) ([]policy.Death, error)
	// Death reads one NodeDeath, whole; ErrNotFound if there is none.
	Death(ctx context.Context, name string) (policy.Death, error)
	// Fleet lists the nodes: those of the cluster, and strangers whose canaries have arrived.
	Fleet() []Node
}

// Node is a node of the fleet.
type Node struct {
	Name         string    `json:"node,omitempty"` // empty for a stranger
	Address      string    `json:"address,omitempty"`
	Cover        string    `json:"cover"` // covered, mute, silent, unproven or stranger
	Why          string    `json:"why,omitempty"`
	Kernel       string    `json:"kernel,omitempty"`
	Image        string    `json:"image,omitempty"`
	InstanceType string    `json:"instanceType,omitempty"`
	Created      time.Time `json:"created,omitzero"`
	Canary       time.Time `json:"canary,omitzero"` // arrival of the last one
}
