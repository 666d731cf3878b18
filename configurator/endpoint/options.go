package endpoint

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
)

// options returns SSM's options for region. From the environment it takes AWS_ENDPOINT_URL_SSM, AWS_ENDPOINT_URL,
// AWS_USE_FIPS_ENDPOINT, AWS_USE_DUALSTACK_ENDPOINT and AWS_CA_BUNDLE, with the meaning they have to every SDK (AWS SDKs and
// Tools Reference Guide). The SDK's own config package would read more, and add 2 MB that a node has no use for.
func options(region string) (ssm.Options, error) {
	o := ssm.Options{
		Region:       region,
		BaseEndpoint: endpointURL(),
		Retryer: retry.NewStandard(func(o *retry.StandardOptions) {
			o.Retryables = append([]retry.IsErrorRetryable{retry.IsErrorRetryableFunc(neverThrottled)}, o.Retryables...)
		}),
	}
	fips, err := enabled("AWS_USE_FIPS_ENDPOINT")
	if err != nil {
		return o, err
	}
	dualStack, err := enabled("AWS_USE_DUALSTACK_ENDPOINT")
	if err != nil {
		return o, err
	}
	if fips {
		o.EndpointOptions.UseFIPSEndpoint = aws.FIPSEndpointStateEnabled
	}
	if dualStack {
		o.EndpointOptions.UseDualStackEndpoint = aws.DualStackEndpointStateEnabled
	}
	roots, err := caBundle()
	if err != nil {
		return o, err
	}
	if roots != nil {
		o.HTTPClient = awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) {
			if t.TLSClientConfig == nil {
				t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
			}
			t.TLSClientConfig.RootCAs = roots
		})
	}
	return o, nil
}

func endpointURL() *string {
	for _, v := range []string{"AWS_ENDPOINT_URL_SSM", "AWS_ENDPOINT_URL"} {
		if url := os.Getenv(v); url != "" {
			return &url
		}
	}
	return nil
}

// enabled reads a switch as every SDK does: true, false or nothing, in any case.
func enabled(variable string) (bool, error) {
	switch value := os.Getenv(variable); strings.ToLower(value) {
	case "true":
		return true, nil
	case "false", "":
		return false, nil
	default:
		return false, fmt.Errorf("%s=%s is neither true nor false; correct it", variable, value)
	}
}

// caBundle returns the certificates of AWS_CA_BUNDLE, which are trusted instead of the system's. Nil means that it is not set.
func caBundle() (*x509.CertPool, error) {
	file := os.Getenv("AWS_CA_BUNDLE")
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read AWS_CA_BUNDLE: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("AWS_CA_BUNDLE=%s has no certificate in it; give a file in PEM form", file)
	}
	return roots, nil
}
