package endpoint

import (
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"github.com/lastgasp/lastgasp/configurator/ec2"
)

// What an operator tells every program of his about AWS counts for this one, too, or is refused.
func TestEndpointOfTheEnvironment(t *testing.T) {
	for _, tt := range []struct {
		name, region string
		environ      map[string]string
		want         string // host that would be asked
		err          string
	}{
		{name: "nothing said", region: "eu-west-1", want: "ssm.eu-west-1.amazonaws.com"},
		{name: "FIPS", region: "us-east-1", environ: map[string]string{"AWS_USE_FIPS_ENDPOINT": "true"}, want: "ssm-fips.us-east-1.amazonaws.com"},
		{name: "FIPS refused in words", region: "us-east-1", environ: map[string]string{"AWS_USE_FIPS_ENDPOINT": "False"}, want: "ssm.us-east-1.amazonaws.com"},
		{name: "dual stack", region: "eu-west-1", environ: map[string]string{"AWS_USE_DUALSTACK_ENDPOINT": "TRUE"}, want: "ssm.eu-west-1.api.aws"},
		{name: "both", region: "us-east-1", environ: map[string]string{"AWS_USE_FIPS_ENDPOINT": "true", "AWS_USE_DUALSTACK_ENDPOINT": "true"},
			want: "ssm-fips.us-east-1.api.aws"},
		{name: "GovCloud has only such endpoints", region: "us-gov-west-1", environ: map[string]string{"AWS_USE_FIPS_ENDPOINT": "true"},
			want: "ssm.us-gov-west-1.amazonaws.com"},
		{name: "China", region: "cn-north-1", want: "ssm.cn-north-1.amazonaws.com.cn"},
		{name: "a bad switch", region: "eu-west-1", environ: map[string]string{"AWS_USE_FIPS_ENDPOINT": "yes"},
			err: "AWS_USE_FIPS_ENDPOINT=yes is neither true nor false; correct it"},
		{name: "FIPS and an endpoint of one's own", region: "eu-west-1",
			environ: map[string]string{"AWS_USE_FIPS_ENDPOINT": "true", "AWS_ENDPOINT_URL_SSM": "https://ssm.example"}, err: "FIPS and custom endpoint are not supported"},
		{name: "no such bundle", region: "eu-west-1", environ: map[string]string{"AWS_CA_BUNDLE": "/nowhere.pem"},
			err: "read AWS_CA_BUNDLE: open /nowhere.pem: no such file or directory"},
		{name: "a bundle without certificates", region: "eu-west-1", environ: map[string]string{"AWS_CA_BUNDLE": os.DevNull},
			err: "AWS_CA_BUNDLE=/dev/null has no certificate in it; give a file in PEM form"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, v := range []string{"AWS_USE_FIPS_ENDPOINT", "AWS_USE_DUALSTACK_ENDPOINT", "AWS_CA_BUNDLE", "AWS_ENDPOINT_URL_SSM", "AWS_ENDPOINT_URL"} {
				t.Setenv(v, tt.environ[v])
			}
			t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
			t.Setenv("AWS_SECRET_ACCESS_KEY", "example")
			o, err := options(tt.region)
			asked := &refuser{}
			if err == nil {
				o.HTTPClient, o.Retryer = asked, aws.NopRetryer{}
				o.Credentials = ec2.Credentials(noMetadata)
				_, err = ssm.New(o).GetParameters(t.Context(), &ssm.GetParametersInput{Names: []string{"/lastgasp/a"}})
			}
			if asked.host != tt.want {
				t.Errorf("%s was asked, want %s (%v)", asked.host, tt.want, err)
			}
			if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
}

// refuser remembers where a request was to go.
type refuser struct{ host string }

func (r *refuser) Do(request *http.Request) (*http.Response, error) {
	r.host = request.URL.Host
	return nil, errors.New("nobody is asked")
}

// TestCABundle asks a server whose certificate no system trusts.
func TestCABundle(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.Write([]byte(`{"Parameters": [{"Name": "/lastgasp/a", "Value": "10.0.2.10:6666", "Version": 1}]}`))
	}))
	t.Cleanup(server.Close)
	bundle := filepath.Join(t.TempDir(), "ca.pem")
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(bundle, certificate, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("AWS_ENDPOINT_URL_SSM", server.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "example")
	t.Setenv("AWS_CA_BUNDLE", bundle)
	if got, err := GetParameters(noMetadata)(t.Context(), "eu-west-1", []string{"/lastgasp/a"}); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
}
