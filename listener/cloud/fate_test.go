package cloud

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/policy"
)

const someInstance = "i-0123456789abcdef0"

// ec2Service answers each action as it was given, and remembers which instances were named.
func ec2Service(t *testing.T, answers map[string]string) *[]string {
	t.Helper()
	asked := new([]string)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		action := r.Form.Get("Action")
		id := r.Form.Get("InstanceId.1") + r.Form.Get("InstanceId")
		*asked = append(*asked, action+" "+id)
		answer, ok := answers[action]
		if !ok {
			w.WriteHeader(http.StatusForbidden)
			answer = `<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>because</Message></Error></Errors></Response>`
		}
		fmt.Fprint(w, answer)
	}))
	t.Cleanup(server.Close)
	setEnvironment(t)
	t.Setenv("AWS_ENDPOINT_URL", server.URL)
	return asked
}

func described(id, state, rest string) string {
	return fmt.Sprintf(`<DescribeInstancesResponse><reservationSet><item><instancesSet><item><instanceId>%s</instanceId>
<instanceState><code>16</code><name>%s</name></instanceState><launchTime>2026-11-26T10:00:00.000Z</launchTime>%s
</item></instancesSet></item></reservationSet></DescribeInstancesResponse>`, id, state, rest)
}

func TestFate(t *testing.T) {
	launched := time.Date(2026, 11, 26, 10, 0, 0, 0, time.UTC)
	const status = `<DescribeInstanceStatusResponse><instanceStatusSet><item><instanceId>` + someInstance + `</instanceId>
<instanceState><name>running</name></instanceState><systemStatus><status>%s</status></systemStatus><instanceStatus><status>ok</status></instanceStatus>
%s</item></instanceStatusSet></DescribeInstanceStatusResponse>`
	for _, tt := range []struct {
		name    string
		answers map[string]string
		want    policy.Fate
		asked   []string
	}{
		{
			name: "terminated by its owner",
			answers: map[string]string{"DescribeInstances": described(someInstance, "terminated", `<reason>User initiated (2026-11-26 12:00:00 GMT)</reason>
<stateReason><code>Client.UserInitiatedShutdown</code><message>Client.UserInitiatedShutdown: User initiated shutdown</message></stateReason>`)},
			want: policy.Fate{
				State: "terminated", Code: "Client.UserInitiatedShutdown", Reason: "Client.UserInitiatedShutdown: User initiated shutdown",
				Since: time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC), Launched: launched,
			},
			asked: []string{"DescribeInstances " + someInstance},
		},
		{
			name: "running on hardware that fails",
			answers: map[string]string{
				"DescribeInstances":      described(someInstance, "running", ""),
				"DescribeInstanceStatus": fmt.Sprintf(status, "impaired", `<eventsSet><item><code>instance-retirement</code><description>The instance is retired</description></item></eventsSet>`),
			},
			want:  policy.Fate{State: "running", Launched: launched, Impaired: "the system status check fails, instance-retirement is scheduled"},
			asked: []string{"DescribeInstances " + someInstance, "DescribeInstanceStatus " + someInstance},
		},
		{
			name: "running without its disks",
			answers: map[string]string{
				"DescribeInstances":      described(someInstance, "running", ""),
				"DescribeInstanceStatus": fmt.Sprintf(status, "ok", `<attachedEbsStatus><status>impaired</status></attachedEbsStatus>`),
			},
			want:  policy.Fate{State: "running", Launched: launched, Impaired: "the attached EBS status check fails"},
			asked: []string{"DescribeInstances " + someInstance, "DescribeInstanceStatus " + someInstance},
		},
		{
			name: "running, and an event that is over",
			answers: map[string]string{
				"DescribeInstances":      described(someInstance, "running", ""),
				"DescribeInstanceStatus": fmt.Sprintf(status, "ok", `<eventsSet><item><code>system-reboot</code><description>[Completed] Rebooted</description></item></eventsSet>`),
			},
			want:  policy.Fate{State: "running", Launched: launched},
			asked: []string{"DescribeInstances " + someInstance, "DescribeInstanceStatus " + someInstance},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			asked := ec2Service(t, tt.answers)
			got, err := Instances{NewAccount(nil)}.Fate(t.Context(), someInstance)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("fate (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.asked, *asked); diff != "" {
				t.Errorf("asked (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFateOfNoInstance(t *testing.T) {
	asked := ec2Service(t, map[string]string{"DescribeInstances": described("i-0fedcba9876543210", "terminated", "")})
	instances := Instances{NewAccount(nil)}
	if f, err := instances.Fate(t.Context(), someInstance); !errors.Is(err, cleanup.ErrNotFound) {
		t.Errorf("another instance's fate: %+v, error %v", f, err)
	}
	for _, id := range []string{"", "ip-10-0-1-5", someInstance + ",i-1"} {
		if _, err := instances.Fate(t.Context(), id); !errors.Is(err, cleanup.ErrNotFound) {
			t.Errorf("fate of %q: error %v", id, err)
		}
		if _, err := instances.Console(t.Context(), id); !errors.Is(err, cleanup.ErrNotFound) {
			t.Errorf("console of %q: error %v", id, err)
		}
	}
	if _, err := instances.Console(t.Context(), someInstance); !errors.Is(err, cleanup.ErrDenied) {
		t.Errorf("no right: error %v", err)
	}
	want := []string{"DescribeInstances " + someInstance, "GetConsoleOutput " + someInstance}
	if diff := cmp.Diff(want, *asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

func TestConsoleInAnyShape(t *testing.T) {
	const text = "\x1b[0;32m  OK  \x1b[0m\r\n[   60.000001] Kernel panic - not syncing: x\r\n"
	encoded := base64.StdEncoding.EncodeToString([]byte(text))
	for _, tt := range []struct{ name, output, want string }{
		{"in one line", encoded, text},
		{"in lines with CRLF", encoded[:20] + "\r\n" + encoded[20:] + "\r\n", text},
		{"indented", "\n    " + encoded[:20] + "\n\t" + encoded[20:] + "\n  ", text},
		{"not encoded", "[   60.000001] Kernel panic - not syncing: x", "[   60.000001] Kernel panic - not syncing: x"},
		{"none yet", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ec2Service(t, map[string]string{"GetConsoleOutput": "<GetConsoleOutputResponse><output>" + tt.output + "</output></GetConsoleOutputResponse>"})
			if got, err := (Instances{NewAccount(nil)}).Console(t.Context(), someInstance); err != nil || got.Text != tt.want || !got.At.IsZero() {
				t.Errorf("%q, %v; want %q", got.Text, err, tt.want)
			}
		})
	}
}

func TestConsole(t *testing.T) {
	long := strings.Repeat("a", maxConsole) + "the end"
	ec2Service(t, map[string]string{"GetConsoleOutput": `<GetConsoleOutputResponse><instanceId>` + someInstance + `</instanceId>
<timestamp>2026-11-26T12:00:00.000Z</timestamp><output>` + base64.StdEncoding.EncodeToString([]byte(long)) + `</output></GetConsoleOutputResponse>`})
	var got policy.Console
	for range 50 { // with the SDK's own handling of bodies every tenth failed
		var err error
		if got, err = (Instances{NewAccount(nil)}).Console(t.Context(), someInstance); err != nil {
			t.Fatal(err)
		}
	}
	if len(got.Text) != maxConsole || !strings.HasSuffix(got.Text, "the end") || !got.At.Equal(time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)) {
		t.Errorf("%d bytes, %q, at %s", len(got.Text), got.Text[max(0, len(got.Text)-20):], got.At)
	}
}
