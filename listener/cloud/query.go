package cloud

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/smithy-go"
)

// query makes one call of a service that speaks AWS's query protocol: a form out, XML back, read into answer unless that
// is nil. It is signed if there are keys. What the service refuses is a smithy.APIError. EC2 and STS are called by three
// actions in all; their SDK clients would add 10 MB to the binary.
//
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/Query-Requests.html
func (a *Account) query(ctx context.Context, service string, keys sdk.CredentialsProvider, form url.Values, answer any) error {
	region, err := a.Region(ctx)
	if err != nil {
		return err
	}
	at, err := urlOf(ctx, service, region)
	if err != nil {
		return err
	}
	body := form.Encode()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(at, "/")+"/", strings.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	if keys != nil {
		k, err := keys.Retrieve(ctx)
		if err != nil {
			return fmt.Errorf("find credentials: %w", err)
		}
		sum := sha256.Sum256([]byte(body))
		if err := v4.NewSigner().SignHTTP(ctx, k, request, hex.EncodeToString(sum[:]), service, region, time.Now()); err != nil {
			return err
		}
	}
	response, err := a.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("read %s's answer: %w", service, err)
	}
	if response.StatusCode != http.StatusOK {
		return refusal(response.Status, text)
	}
	if answer == nil {
		return nil
	}
	if err := xml.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("read %s's answer: %w", service, err)
	}
	return nil
}

// refusal is what an answer other than 200 says.
func refusal(status string, text []byte) error {
	type said struct {
		Code    string `xml:"Code"`
		Message string `xml:"Message"`
	}
	var e struct {
		EC2 said `xml:"Errors>Error"`
		STS said `xml:"Error"`
	}
	xml.Unmarshal(text, &e) // a load balancer's page is no XML: then the status has to do
	for _, s := range []said{e.EC2, e.STS} {
		if s.Code != "" {
			return &smithy.GenericAPIError{Code: s.Code, Message: s.Message}
		}
	}
	return fmt.Errorf("answered with %s", status)
}
