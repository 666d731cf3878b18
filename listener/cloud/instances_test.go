package cloud

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/cleanup"
)

// query answers requests in AWS's query protocol and remembers the last.
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
	t.Setenv("AWS_ENDPOINT_URL_EC2", "")
	t.Setenv("AWS_ENDPOINT_URL", server.URL)
	t.Setenv("AWS_REGION", "eu-west-1")
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "example")
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
	instances := Instances{NewAccount(http.DefaultClient)}
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
		t.Errorf("%d requests: what is no id must not be sent", q.requests)
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
		{"an instance that is gone", 400, refuses("InvalidInstanceID.NotFound"), cleanup.ErrNotFound, "RebootInstances i-0123456789abcdef0: not found: InvalidInstanceID.NotFound: because"},
		{"no right", 403, refuses("UnauthorizedOperation"), cleanup.ErrDenied, "denied: UnauthorizedOperation: because"},
		{"protection against termination", 400, refuses("OperationNotPermitted"), cleanup.ErrDenied, "denied: OperationNotPermitted: because"},
		{"terminated already", 400, refuses("IncorrectState"), cleanup.ErrDenied, "denied: IncorrectState: because"},
		{"throttling", 503, refuses("RequestLimitExceeded"), nil, "RequestLimitExceeded: because"},
		{"credentials that have just expired", 400, refuses("RequestExpired"), nil, "RequestExpired: because"},
		{"something in between", 502, "<html>Bad Gateway", nil, "answered with 502 Bad Gateway"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := newQueryService(t)
			q.status, q.answer = tt.status, tt.answer
			err := Instances{NewAccount(http.DefaultClient)}.Reboot(t.Context(), "i-0123456789abcdef0")
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

func TestAServiceAccountsRole(t *testing.T) {
	q := newQueryService(t)
	q.answer = `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIAEXAMPLE</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>
<SessionToken>session</SessionToken><Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>
</AssumeRoleWithWebIdentityResponse>`
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("jwt\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	t.Setenv("AWS_WEB_IDENTITY_TOKEN_FILE", file)
	t.Setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/listener")
	keys, err := NewAccount(http.DefaultClient).keys.Retrieve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if keys.AccessKeyID != "ASIAEXAMPLE" || keys.SecretAccessKey != "secret" || keys.SessionToken != "session" || keys.Expires.Year() != 2999 {
		t.Errorf("credentials %+v", keys)
	}
	if q.authorization != "" || q.form.Get("WebIdentityToken") != "jwt" || q.form.Get("RoleArn") != "arn:aws:iam::123456789012:role/listener" {
		t.Errorf("request %v, signed %q", q.form, q.authorization)
	}

	q.status, q.answer = 403, `<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>because</Message></Error></ErrorResponse>`
	if _, err = NewAccount(http.DefaultClient).keys.Retrieve(t.Context()); err == nil || !strings.Contains(err.Error(), "AccessDenied: because") {
		t.Errorf("error %v", err)
	}
}

func TestURLs(t *testing.T) {
	t.Setenv("AWS_ENDPOINT_URL", "")
	for _, tt := range []struct{ service, region, want string }{
		{"ec2", "eu-west-1", "https://ec2.eu-west-1.amazonaws.com"},
		{"sts", "cn-north-1", "https://sts.cn-north-1.amazonaws.com.cn"},
		{"ssm", "us-gov-west-1", "https://ssm.us-gov-west-1.amazonaws.com"},
	} {
		if got, err := urlOf(t.Context(), tt.service, tt.region); err != nil || got != tt.want {
			t.Errorf("%s in %s is %q, %v; want %q", tt.service, tt.region, got, err, tt.want)
		}
	}
}
