// Package ec2 asks the instance metadata service who this instance is. It uses version 2 of the protocol only, retries while
// the instance boots, and never goes through a proxy.
package ec2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
)

// Instance is what the metadata service says about an instance.
type Instance struct {
	ID         string
	Region     string
	ZoneName   string // availability zone, differs between accounts
	ZoneID     string // availability zone id, the same for everybody
	Interfaces []Interface
}

// Interface is one elastic network interface of the instance.
type Interface struct {
	MAC     net.HardwareAddr
	Primary bool         // its first address is the one Kubernetes knows the node by
	Addrs   []netip.Addr // private addresses, the primary one first
}

// Client asks the metadata service. Make one and share it: each client requests a token of its own.
type Client struct {
	IMDS *imds.Client // for the SDK's credential provider
}

// New returns a client of the service at url. An empty url means AWS_EC2_METADATA_SERVICE_ENDPOINT, else the IPv4 link-local
// address, or the IPv6 one with AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE=IPv6. Calls are retried until their context ends, at
// most once a second: while an instance boots the service may hang, refuse, or not know the role's credentials yet (404).
func New(url string) *Client {
	return newClient(url, 2*time.Second, time.Second)
}

// newClient is New with the timeout of one attempt, so that a hanging service does not use up the caller's deadline, and the
// longest pause between two attempts.
func newClient(url string, attempt, pause time.Duration) *Client {
	options := imds.Options{
		Endpoint:                 url,
		EnableFallback:           aws.FalseTernary,
		DisableDefaultTimeout:    true,
		DisableDefaultMaxBackoff: true,
		HTTPClient: &http.Client{
			Timeout: attempt,
			// No Proxy: the address is link-local, whatever HTTP_PROXY says.
			Transport: &http.Transport{MaxIdleConns: 2, IdleConnTimeout: 10 * time.Second},
		},
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts = 60
			o.MaxBackoff = pause
			o.RateLimiter = unlimited{}
			o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(lateOrHanging)}, o.Retryables...)
		}),
	}
	if strings.EqualFold(os.Getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"), "IPv6") {
		options.EndpointMode = imds.EndpointModeStateIPv6 // the SDK's config package reads it, the client does not
	}
	return &Client{IMDS: imds.New(options)}
}

// lateOrHanging makes errors retryable that are temporary while an instance boots: an attempt that timed out, and a 404 for
// what is not known yet. The caller's context ends the retries.
func lateOrHanging(err error) aws.Ternary {
	var status interface{ HTTPStatusCode() int }
	if errors.As(err, &status) && status.HTTPStatusCode() == http.StatusNotFound {
		return aws.TrueTernary
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return aws.TrueTernary
	}
	return aws.UnknownTernary
}

// unlimited lets every retry through: nobody else uses this instance's service.
type unlimited struct{}

func (unlimited) GetToken(context.Context, uint) (func() error, error) {
	return func() error { return nil }, nil
}

func (unlimited) AddTokens(uint) error { return nil }

// Instance asks for everything. It retries until ctx ends.
func (c *Client) Instance(ctx context.Context) (Instance, error) {
	var i Instance
	var primary string
	// As with interfaces, the folder says whether there is a zone id: not in every place that speaks this protocol.
	places, err := c.get(ctx, "placement/")
	if err != nil {
		return Instance{}, err
	}
	for _, get := range []struct {
		path string
		to   *string
	}{
		{"instance-id", &i.ID},
		{"placement/region", &i.Region},
		{"placement/availability-zone", &i.ZoneName},
		{"placement/availability-zone-id", &i.ZoneID},
		{"mac", &primary},
	} {
		if name, ok := strings.CutPrefix(get.path, "placement/"); ok && !slices.Contains(strings.Fields(places), name) {
			continue
		}
		if *get.to, err = c.get(ctx, get.path); err != nil {
			return Instance{}, err
		}
	}
	macs, err := c.get(ctx, "network/interfaces/macs/")
	if err != nil {
		return Instance{}, err
	}
	for _, m := range strings.Fields(macs) {
		n, err := c.iface(ctx, strings.TrimSuffix(m, "/"))
		if err != nil {
			return Instance{}, err
		}
		n.Primary = n.MAC.String() == primary
		i.Interfaces = append(i.Interfaces, n)
	}
	return i, nil
}

func (c *Client) iface(ctx context.Context, mac string) (Interface, error) {
	hw, err := net.ParseMAC(mac)
	if err != nil {
		return Interface{}, fmt.Errorf("ask instance metadata: %w", err)
	}
	n := Interface{MAC: hw}
	// The folder's listing says which of the lists exist: an interface without IPv6 has no ipv6s, and the 404 for it would be
	// retried as if the data were late.
	folder := "network/interfaces/macs/" + mac + "/"
	names, err := c.get(ctx, folder)
	if err != nil {
		return Interface{}, err
	}
	for _, name := range strings.Fields(names) {
		if name != "local-ipv4s" && name != "ipv6s" {
			continue
		}
		list, err := c.get(ctx, folder+name)
		if err != nil {
			return Interface{}, err
		}
		for _, s := range strings.Fields(list) {
			ip, err := netip.ParseAddr(s)
			if err != nil {
				return Interface{}, fmt.Errorf("ask instance metadata for %s%s: %w", folder, name, err)
			}
			n.Addrs = append(n.Addrs, ip)
		}
	}
	return n, nil
}

func (c *Client) get(ctx context.Context, path string, options ...func(*imds.Options)) (string, error) {
	out, err := c.IMDS.GetMetadata(ctx, &imds.GetMetadataInput{Path: path}, options...)
	if err != nil {
		return "", fmt.Errorf("ask instance metadata for %s: %w", path, err)
	}
	defer out.Content.Close()
	data, err := io.ReadAll(io.LimitReader(out.Content, 64<<10))
	if err != nil {
		return "", fmt.Errorf("ask instance metadata for %s: %w", path, err)
	}
	return strings.TrimSpace(string(data)), nil
}
