package ec2

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/e2e/cloud/imds"
)

func TestNotices(t *testing.T) {
	for _, tt := range []struct {
		name    string
		notices map[string]string
		want    Notices
		err     string // contains
	}{
		{name: "nothing is announced"},
		{name: "a spot interruption", notices: map[string]string{"spot/instance-action": `{"action": "terminate", "time": "2026-11-26T18:52:00Z"}`},
			want: Notices{SpotAction: "terminate", SpotTime: time.Date(2026, 11, 26, 18, 52, 0, 0, time.UTC)}},
		{name: "an Auto Scaling group that keeps it", notices: map[string]string{"autoscaling/target-lifecycle-state": "InService"}},
		{name: "an Auto Scaling group that terminates it", notices: map[string]string{"autoscaling/target-lifecycle-state": "Terminated"}, want: Notices{ASGTerminates: true}},
		{name: "no scheduled events", notices: map[string]string{"events/maintenance/scheduled": "[]"}},
		{name: "scheduled events, one of them over", notices: map[string]string{"events/maintenance/scheduled": `[
			{"NotBefore": "21 Jan 2026 09:00:43 GMT", "Code": "system-reboot", "Description": "scheduled reboot", "EventId": "instance-event-1", "NotAfter": "21 Jan 2026 09:17:23 GMT", "State": "active"},
			{"NotBefore": "1 Jan 2026 09:00:00 GMT", "Code": "system-reboot", "Description": "[Completed] scheduled reboot", "EventId": "instance-event-0", "NotAfter": "", "State": "completed"}]`},
			want: Notices{Events: []ScheduledEvent{{"instance-event-1", "system-reboot", time.Date(2026, 1, 21, 9, 0, 43, 0, time.UTC)}}}},
		{name: "a notice that cannot be read", notices: map[string]string{"spot/instance-action": "soon"}, err: "read instance metadata spot/instance-action: invalid character"},
		{name: "a time that cannot be read", notices: map[string]string{"events/maintenance/scheduled": `[{"EventId": "e", "State": "active", "NotBefore": "soon"}]`}, err: "read scheduled event e: "},
		{name: "a spot interruption beside an event that cannot be read", notices: map[string]string{
			"spot/instance-action":         `{"action": "stop", "time": "2026-11-26T18:52:00Z"}`,
			"events/maintenance/scheduled": `[{"EventId": "e", "State": "active", "NotBefore": "soon"}]`,
		}, want: Notices{SpotAction: "stop", SpotTime: time.Date(2026, 11, 26, 18, 52, 0, 0, time.UTC)}, err: "read scheduled event e: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			svc := &imds.Service{Instance: twoENIs()}
			svc.Instance.Notices = tt.notices
			got, err := startIMDS(t, svc).Notices(t.Context())
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Fatalf("error %v, want %q", err, tt.err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if n := count(svc, "/latest/meta-data/spot/instance-action"); n != 1 {
				t.Errorf("asked %d times, want once", n)
			}
		})
	}
}

// A service that fails is asked again at the next time, and not over and over now.
func TestNoticesOfAFailingService(t *testing.T) {
	svc := &imds.Service{Instance: twoENIs(), Fault: func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/spot/") {
			http.Error(w, "500 - Internal Server Error", http.StatusInternalServerError)
			return true
		}
		return false
	}}
	if _, err := startIMDS(t, svc).Notices(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "ask instance metadata for spot/instance-action: ") {
		t.Errorf("error %v", err)
	}
	if n := count(svc, "/latest/meta-data/spot/instance-action"); n != 1 {
		t.Errorf("asked %d times, want once", n)
	}
}
