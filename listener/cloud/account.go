// Package cloud is all that the listener knows of AWS, and both of it is opt-in: it announces where the listener is in
// Parameter Store, and reboots or terminates the instance below a node that has panicked.
package cloud

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
)

// Account is how AWS is reached. Region, credentials and endpoints come from the usual environment variables
// (AWS_REGION, AWS_ROLE_ARN, AWS_ENDPOINT_URL, …), else from the metadata service of the instance this runs on. Nothing is
// asked before it is needed.
type Account struct {
	http     *http.Client
	metadata *imds.Client
	keys     *sdk.CredentialsCache

	mu     sync.Mutex
	region string // once it is known
}

// metadataTimeout bounds a question to the metadata service, which a pod may be too many hops away from.
const metadataTimeout = 3 * time.Second

// NewAccount returns the account this process belongs to. Calls other than those to the metadata service go by client.
func NewAccount(client *http.Client) *Account {
	a := &Account{
		http: client,
		metadata: imds.New(imds.Options{
			EnableFallback: sdk.FalseTernary,
			// No proxy: the address is link-local, whatever HTTP_PROXY says.
			HTTPClient: &http.Client{Timeout: metadataTimeout, Transport: &http.Transport{}},
		}),
	}
	a.keys = sdk.NewCredentialsCache(a.credentials())
	return a
}

// Region is the region that calls go to.
func (a *Account) Region(ctx context.Context) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.region == "" {
		a.region = cmp.Or(os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"))
	}
	if a.region == "" {
		region, err := a.ask(ctx, "placement/region")
		if err != nil {
			return "", fmt.Errorf("find the region (AWS_REGION is not set): %w", err)
		}
		a.region = region
	}
	return a.region, nil
}

// zone is the id of the availability zone this runs in.
func (a *Account) zone(ctx context.Context) (string, error) {
	return a.ask(ctx, "placement/availability-zone-id")
}

// ask reads one value of the metadata service.
func (a *Account) ask(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, metadataTimeout)
	defer cancel()
	out, err := a.metadata.GetMetadata(ctx, &imds.GetMetadataInput{Path: path})
	if err != nil {
		return "", fmt.Errorf("ask instance metadata for %s: %w", path, err)
	}
	defer out.Content.Close()
	text, err := io.ReadAll(io.LimitReader(out.Content, 1<<10))
	if err != nil {
		return "", fmt.Errorf("ask instance metadata for %s: %w", path, err)
	}
	if len(text) == 0 {
		return "", fmt.Errorf("ask instance metadata for %s: it is empty", path)
	}
	return string(text), nil
}

// urlOf is the URL of a service ("ssm", "ec2", "sts") in region.
func urlOf(ctx context.Context, service, region string) (string, error) {
	if url := cmp.Or(os.Getenv("AWS_ENDPOINT_URL_"+strings.ToUpper(service)), os.Getenv("AWS_ENDPOINT_URL")); url != "" {
		return url, nil
	}
	// What the partitions' domains are is known to the SDK's clients only; that of ssm is here anyway.
	off := false
	found, err := ssm.NewDefaultEndpointResolverV2().ResolveEndpoint(ctx, ssm.EndpointParameters{
		Region: &region, UseDualStack: &off, UseFIPS: &off,
	})
	if err != nil {
		return "", fmt.Errorf("find %s in region %s: %w", service, region, err)
	}
	host, ok := strings.CutPrefix(found.URI.Host, "ssm.")
	if !ok {
		return "", errors.New("find " + service + " in region " + region + ": " + found.URI.Host + " is of an unknown form")
	}
	return "https://" + service + "." + host, nil
}
