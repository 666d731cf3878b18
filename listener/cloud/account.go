// Package cloud is all that the listener knows of AWS. It announces where the listener is in Parameter Store, asks how
// the instance of a silent node ended, and reboots, terminates or replaces the instance of one that has panicked. All are off by default.
package cloud

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/smithy-go"
)

// Account is the AWS account this process belongs to, found as AWS's own tools find it: by environment variables
// (AWS_REGION, AWS_ROLE_ARN, AWS_ENDPOINT_URL, AWS_USE_FIPS_ENDPOINT, AWS_CA_BUNDLE, …), the shared config file, the role of
// the service account (IRSA, EKS Pod Identity), or the metadata service of the instance. Nothing is looked up before it is
// needed, and after a failure the next call tries again.
type Account struct {
	client   sdk.HTTPClient
	metadata *imds.Client

	mu    sync.Mutex
	found *clients
}

// clients are made together, once the account has been found.
type clients struct {
	region string
	ec2    *ec2.Client
	groups *autoscaling.Client
	ssm    *ssm.Client
}

// NewAccount returns the account this process belongs to. Calls go through client; nil is the SDK's own. With AWS_CA_BUNDLE
// set, another client must be an *awshttp.BuildableClient, or nothing is found.
func NewAccount(client sdk.HTTPClient) *Account {
	return &Account{client: client, metadata: imds.New(imds.Options{
		EnableFallback: sdk.FalseTernary,
		// The address is link-local, and no proxy reaches it.
		HTTPClient: awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { t.Proxy = nil }),
	})}
}

func (a *Account) clients(ctx context.Context) (*clients, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.found != nil {
		return a.found, nil
	}
	cfg, err := config.LoadDefaultConfig(ctx,
		config.WithHTTPClient(a.client),
		config.WithEC2IMDSRegion(func(o *config.UseEC2IMDSRegion) { o.Client = a.metadata }),
		config.WithEC2RoleCredentialOptions(func(o *ec2rolecreds.Options) { o.Client = a.metadata }),
	)
	if err != nil {
		return nil, fmt.Errorf("find the AWS account by environment (AWS_REGION, …) or instance metadata: %w", err)
	}
	a.found = &clients{
		region: cfg.Region,
		ssm:    ssm.NewFromConfig(cfg),
		// In these two cleanup itself repeats calls and logs why. The SDK's retries would hide that.
		ec2: ec2.NewFromConfig(cfg, func(o *ec2.Options) {
			o.Retryer, o.HTTPClient = sdk.NopRetryer{}, ownBody{o.HTTPClient}
		}),
		groups: autoscaling.NewFromConfig(cfg, func(o *autoscaling.Options) {
			o.Retryer, o.HTTPClient = sdk.NopRetryer{}, ownBody{o.HTTPClient}
		}),
	}
	return a.found, nil
}

// ownBody sends requests with a body that nobody else closes. smithy-go closes the one it made as soon as a response begins;
// if net/http has not read to its end by then, it takes that for a failed write and closes the connection below the response
// (smithy-go transport/http/client.go, internal/io/safe.go). Bodies of these requests are short.
type ownBody struct{ client ec2.HTTPClient }

// Do implements ec2.HTTPClient.
func (c ownBody) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, fmt.Errorf("read request: %w", err)
		}
		r = r.Clone(r.Context())
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	return c.client.Do(r)
}

// zone is the id of the availability zone this runs in.
func (a *Account) zone(ctx context.Context) (string, error) {
	const path = "placement/availability-zone-id"
	out, err := a.metadata.GetMetadata(ctx, &imds.GetMetadataInput{Path: path})
	if err != nil {
		return "", fmt.Errorf("ask instance metadata for %s: %w", path, err)
	}
	defer out.Content.Close()
	zone, err := io.ReadAll(io.LimitReader(out.Content, 1<<10))
	if err != nil {
		return "", fmt.Errorf("ask instance metadata for %s: %w", path, err)
	}
	return string(zone), nil
}

// shorten reduces the SDK's errors to what an operator can use.
func shorten(err error) error {
	var refused smithy.APIError
	if errors.As(err, &refused) {
		return fmt.Errorf("%s: %s", refused.ErrorCode(), refused.ErrorMessage())
	}
	return err
}
