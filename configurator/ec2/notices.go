package ec2

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
)

// Notices is what EC2 has announced to do to this instance. It is zero if nothing is.
type Notices struct {
	SpotAction    string    // of a spot interruption: terminate, stop or hibernate
	SpotTime      time.Time // when
	ASGTerminates bool      // the Auto Scaling group wants it terminated
	Events        []ScheduledEvent
}

// ScheduledEvent is an event that EC2 has scheduled for the instance and that is still to come.
type ScheduledEvent struct {
	ID        string
	Code      string // system-reboot, instance-retirement, …
	NotBefore time.Time
}

// eventTime is the form of times in events/maintenance/scheduled.
const eventTime = "2 Jan 2006 15:04:05 GMT"

// Notices asks once for what is announced. A 404 means nothing is, and is the usual answer, so nothing is retried. With an error
// it still returns the notices that could be read.
func (c *Client) Notices(ctx context.Context) (Notices, error) {
	var n Notices
	var spot struct {
		Action string
		Time   time.Time
	}
	known, spotErr := c.once(ctx, "spot/instance-action", func(text []byte) error { return json.Unmarshal(text, &spot) })
	if known {
		n.SpotAction, n.SpotTime = spot.Action, spot.Time
	}
	_, groupErr := c.once(ctx, "autoscaling/target-lifecycle-state", func(text []byte) error {
		n.ASGTerminates = string(text) == "Terminated" || string(text) == "Warmed:Terminated"
		return nil
	})
	var events []struct{ Code, State, EventId, NotBefore string }
	_, err := c.once(ctx, "events/maintenance/scheduled", func(text []byte) error { return json.Unmarshal(text, &events) })
	errs := []error{spotErr, groupErr, err}
	for _, e := range events {
		if e.State != "active" {
			continue
		}
		at, err := time.Parse(eventTime, e.NotBefore)
		if err != nil {
			errs = append(errs, fmt.Errorf("read scheduled event %s: %w", e.EventId, err))
			continue
		}
		n.Events = append(n.Events, ScheduledEvent{e.EventId, e.Code, at})
	}
	return n, errors.Join(errs...)
}

// once asks for a path without retries, and reads the answer. It reports false if there is no such path.
func (c *Client) once(ctx context.Context, path string, read func([]byte) error) (known bool, err error) {
	text, err := c.get(ctx, path, func(o *imds.Options) { o.Retryer = aws.NopRetryer{} })
	var status interface{ HTTPStatusCode() int }
	switch {
	case errors.As(err, &status) && status.HTTPStatusCode() == http.StatusNotFound:
		return false, nil
	case err != nil:
		return false, err
	}
	if err := read([]byte(text)); err != nil {
		return false, fmt.Errorf("read instance metadata %s: %w", path, err)
	}
	return true, nil
}
