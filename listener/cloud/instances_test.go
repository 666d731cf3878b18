package cloud

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/cleanup"
)

// queryService answers requests in AWS's query protocol and remembers the last.
type queryService struct {
	status int
	answer string

	form          url.Values
	authorization string
	requests      int
}

func newQueryService(t *testing.T) *queryService {
	t.Helper()
	q := &queryService{status: http.StatusOK, answer: "<Response/>"}
	server := httptest.NewServer(q)
	t.Cleanup(server.Close)
	setEnvironment(t)
	t.Setenv("AWS_ENDPOINT_URL", server.URL)
	return q
}

func (q *queryService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(err)
	}
	q.form, _ = url.ParseQuery(string(body))
	q.authorization = r.Header.Get("Authorization")
	q.requests++
	w.WriteHeader(q.status)
	io.WriteString(w, q.answer)
}

func TestInstancesAreNamedByID(t *testing.T) {
	q := newQueryService(t)
	instances := Instances{NewAccount(nil)}
	if err := instances.Terminate(t.Context(), "i-0123456789abcdef0"); err != nil {
		t.Fatal(err)
	}
	want := url.Values{"Action": {"TerminateInstances"}, "Version": {"2016-11-15"}, "InstanceId.1": {"i-0123456789abcdef0"}}
	if diff := cmp.Diff(want, q.form); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	if !strings.Contains(q.authorization, "/eu-west-1/ec2/aws4_request") {
		t.Errorf("signed %q", q.authorization)
	}
	for _, id := range []string{"", "ip-10-0-1-5", "i-0123456789ABCDEF0", "i-0123456789abcdef0 ", "i-0123456789abcdef0,i-1"} {
		if err := instances.Reboot(t.Context(), id); !errors.Is(err, cleanup.ErrNotFound) {
			t.Errorf("%q: error %v", id, err)
		}
	}
	if q.requests != 1 {
		t.Errorf("%d requests: only an instance id may be sent", q.requests)
	}
}

func TestAnInstanceIsReplacedByItsGroup(t *testing.T) {
	q := newQueryService(t)
	instances := Instances{NewAccount(nil)}
	if err := instances.SetUnhealthy(t.Context(), "i-0123456789abcdef0"); err != nil {
		t.Fatal(err)
	}
	want := url.Values{
		"Action": {"SetInstanceHealth"}, "Version": {"2011-01-01"}, "InstanceId": {"i-0123456789abcdef0"},
		"HealthStatus": {"Unhealthy"}, "ShouldRespectGracePeriod": {"false"},
	}
	if diff := cmp.Diff(want, q.form); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	if !strings.Contains(q.authorization, "/eu-west-1/autoscaling/aws4_request") {
		t.Errorf("signed %q", q.authorization)
	}
	for code, is := range map[string]error{"ValidationError": cleanup.ErrDenied, "AccessDenied": cleanup.ErrDenied, "ResourceContention": nil, "Throttling": nil} {
		q.status, q.answer = http.StatusBadRequest, fmt.Sprintf(`<ErrorResponse xmlns="http://autoscaling.amazonaws.com/doc/2011-01-01/">
<Error><Type>Sender</Type><Code>%s</Code><Message>because</Message></Error><RequestId>1</RequestId></ErrorResponse>`, code)
		err := instances.SetUnhealthy(t.Context(), "i-0123456789abcdef0")
		if err == nil || !strings.HasPrefix(err.Error(), "set unhealthy i-0123456789abcdef0: ") || errors.Is(err, cleanup.ErrDenied) != (is != nil) {
			t.Errorf("%s: error %v", code, err)
		}
	}
}

func TestInstancesErrors(t *testing.T) {
	refuses := func(code string) string {
		return fmt.Sprintf(`<?xml version="1.0" encoding="UTF-8"?>
<Response><Errors><Error><Code>%s</Code><Message>because</Message></Error></Errors><RequestID>1</RequestID></Response>`, code)
	}
	for _, tt := range []struct {
		name   string
		status int
		answer string
		is     error // nil: may pass
		want   string
	}{
		{"an instance that is gone", 400, refuses("InvalidInstanceID.NotFound"), cleanup.ErrNotFound, "reboot i-0123456789abcdef0: not found: InvalidInstanceID.NotFound: because"},
		{"no right", 403, refuses("UnauthorizedOperation"), cleanup.ErrDenied, "denied: UnauthorizedOperation: because"},
		{"protection against termination", 400, refuses("OperationNotPermitted"), cleanup.ErrDenied, "denied: OperationNotPermitted: because"},
		{"terminated already", 400, refuses("IncorrectState"), cleanup.ErrDenied, "denied: IncorrectState: because"},
		{"throttling", 503, refuses("RequestLimitExceeded"), nil, "RequestLimitExceeded: because"},
		{"credentials that have just expired", 400, refuses("RequestExpired"), nil, "RequestExpired: because"},
		{"something in between", 502, "<html>Bad Gateway", nil, "StatusCode: 502"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := newQueryService(t)
			q.status, q.answer = tt.status, tt.answer
			err := Instances{NewAccount(nil)}.Reboot(t.Context(), "i-0123456789abcdef0")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want %q", err, tt.want)
			}
			for _, known := range []error{cleanup.ErrNotFound, cleanup.ErrDenied} {
				if errors.Is(err, known) != (known == tt.is) {
					t.Errorf("%v is %v: %t", err, known, known != tt.is)
				}
			}
		})
	}
}
