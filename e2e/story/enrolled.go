package story

import (
	"context"
	"encoding/json"
	"fmt"
)

// Enrolled waits until the node's configurator says that it has enrolled, and returns how it says that.
func (w *World) Enrolled(ctx context.Context, n *Node) (line string, err error) {
	err = await(ctx, n.Name+" to be enrolled", func(ctx context.Context) error {
		line, err = enrolment(ctx, n)
		return err
	})
	return line, err
}

func enrolment(ctx context.Context, n *Node) (string, error) {
	r, err := n.VM.Run(ctx, "/usr/bin/lastgasp-configurator", "status", "-o", "json")
	if err != nil {
		return "", err
	}
	var status struct {
		Enrolment *struct {
			Enrolled              bool
			Node, Kubeconfig, Why string
		}
	}
	if err := json.Unmarshal([]byte(r.Stdout), &status); err != nil {
		return "", fmt.Errorf("read status of %s: %w: %s", n.Name, err, r.Stderr)
	}
	switch e := status.Enrolment; {
	case e == nil:
		return "", fmt.Errorf("%s has not tried to enrol", n.Name)
	case !e.Enrolled:
		return "", fmt.Errorf("%s is not enrolled: %s", n.Name, e.Why)
	default:
		return fmt.Sprintf("as %s, with %s", e.Node, e.Kubeconfig), nil
	}
}
