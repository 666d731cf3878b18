package enroll

import (
	"encoding/base64"
	"net/url"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/google/go-cmp/cmp"
)

func TestExecThatIsUnderstood(t *testing.T) {
	for _, tt := range []struct {
		name    string
		command string
		args    string
		env     map[string]string
		want    eksCluster
	}{
		{"aws", "aws", "eks get-token --cluster-name prod-1 --region eu-west-1", nil, eksCluster{"prod-1", "eu-west-1"}},
		{"its flags first", "/usr/local/bin/aws", "--region eu-west-1 eks get-token --output json --cluster-name prod-1", nil, eksCluster{"prod-1", "eu-west-1"}},
		{"values after an equals sign", "aws", "eks get-token --cluster-name=prod-1 --region=eu-west-1", nil, eksCluster{"prod-1", "eu-west-1"}},
		{"a cluster on an Outpost has an id", "aws", "eks get-token --cluster-id 6f1b --region eu-west-1", nil, eksCluster{"6f1b", "eu-west-1"}},
		{"the region of its environment", "aws", "eks get-token --cluster-name prod-1", map[string]string{"AWS_REGION": "eu-west-1"}, eksCluster{"prod-1", "eu-west-1"}},
		{"no region: that of the instance", "aws", "eks get-token --cluster-name prod-1", map[string]string{"AWS_STS_REGIONAL_ENDPOINTS": "regional"}, eksCluster{"prod-1", ""}},
		{"aws-iam-authenticator", "/usr/bin/aws-iam-authenticator", "token -i prod-1 --region eu-west-1", nil, eksCluster{"prod-1", "eu-west-1"}},
		{"aws-iam-authenticator with its long flag", "aws-iam-authenticator", "token --cluster-id prod-1 --cache", nil, eksCluster{"prod-1", ""}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := execPart{Command: tt.command, Args: strings.Fields(tt.args)}
			for name, value := range tt.env {
				e.Env = append(e.Env, struct {
					Name  string `yaml:"name"`
					Value string `yaml:"value"`
				}{name, value})
			}
			got, err := e.eks()
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&tt.want, got); diff != "" {
				t.Errorf("cluster (-want +got):\n%s", diff)
			}
		})
	}
}

// TestToken looks at what is presigned. That aws-iam-authenticator takes it is tried in e2e/authenticator.
func TestToken(t *testing.T) {
	for region, host := range map[string]string{
		"eu-west-1":        "sts.eu-west-1.amazonaws.com",
		"us-east-1":        "sts.us-east-1.amazonaws.com",
		"cn-north-1":       "sts.cn-north-1.amazonaws.com.cn",
		"us-gov-west-1":    "sts.us-gov-west-1.amazonaws.com",
		"us-iso-east-1":    "sts.us-iso-east-1.c2s.ic.gov",
		"eusc-de-east-1":   "sts.eusc-de-east-1.amazonaws.eu",
		"ap-imaginary-999": "sts.ap-imaginary-999.amazonaws.com",
	} {
		t.Run(region, func(t *testing.T) {
			c := eksCluster{ID: "prod-1", Region: region}
			token, err := c.token(t.Context(), nil, credentials.NewStaticCredentialsProvider("AKID", "secret", "session"))
			if err != nil {
				t.Fatal(err)
			}
			text, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(token, "k8s-aws-v1."))
			if err != nil || !strings.HasPrefix(token, "k8s-aws-v1.") {
				t.Fatalf("token %q: %v", token, err)
			}
			u, err := url.Parse(string(text))
			if err != nil {
				t.Fatal(err)
			}
			q := u.Query()
			got := []string{u.Scheme, u.Host, u.Path, q.Get("Action"), q.Get("X-Amz-Expires"), q.Get("X-Amz-SignedHeaders"), q.Get("X-Amz-Security-Token")}
			want := []string{"https", host, "/", "GetCallerIdentity", "60", "host;x-k8s-aws-id", "session"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
		})
	}
}
