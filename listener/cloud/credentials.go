package cloud

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
)

// credentials are, in the order of AWS's own tools: keys in the environment, a service account's role (IRSA), that of EKS
// Pod Identity, the instance's.
func (a *Account) credentials() sdk.CredentialsProvider {
	if id := os.Getenv("AWS_ACCESS_KEY_ID"); id != "" {
		return credentials.NewStaticCredentialsProvider(id, os.Getenv("AWS_SECRET_ACCESS_KEY"), os.Getenv("AWS_SESSION_TOKEN"))
	}
	if file := os.Getenv("AWS_WEB_IDENTITY_TOKEN_FILE"); file != "" {
		return sdk.CredentialsProviderFunc(func(ctx context.Context) (sdk.Credentials, error) { return a.assumeRole(ctx, file) })
	}
	if at := os.Getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI"); at != "" {
		return endpointcreds.New(at, func(o *endpointcreds.Options) {
			o.HTTPClient = a.http
			o.AuthorizationToken = os.Getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN")
			if file := os.Getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"); file != "" {
				o.AuthorizationTokenProvider = endpointcreds.TokenProviderFunc(func() (string, error) { return readToken(file) })
			}
		})
	}
	return ec2rolecreds.New(func(o *ec2rolecreds.Options) { o.Client = a.metadata })
}

// assumeRole trades the token that Kubernetes puts into a file for the credentials of AWS_ROLE_ARN.
func (a *Account) assumeRole(ctx context.Context, file string) (sdk.Credentials, error) {
	token, err := readToken(file)
	if err != nil {
		return sdk.Credentials{}, err
	}
	var answer struct {
		ID      string    `xml:"AssumeRoleWithWebIdentityResult>Credentials>AccessKeyId"`
		Secret  string    `xml:"AssumeRoleWithWebIdentityResult>Credentials>SecretAccessKey"`
		Token   string    `xml:"AssumeRoleWithWebIdentityResult>Credentials>SessionToken"`
		Expires time.Time `xml:"AssumeRoleWithWebIdentityResult>Credentials>Expiration"`
	}
	role := os.Getenv("AWS_ROLE_ARN")
	err = a.query(ctx, "sts", nil, url.Values{
		"Action": {"AssumeRoleWithWebIdentity"}, "Version": {"2011-06-15"}, "RoleArn": {role}, "WebIdentityToken": {token},
		"RoleSessionName": {cmp.Or(os.Getenv("AWS_ROLE_SESSION_NAME"), "lastgasp-listener")},
	}, &answer)
	if err != nil {
		return sdk.Credentials{}, fmt.Errorf("assume role %s: %w", role, err)
	}
	return sdk.Credentials{
		AccessKeyID: answer.ID, SecretAccessKey: answer.Secret, SessionToken: answer.Token,
		CanExpire: true, Expires: answer.Expires, Source: "AssumeRoleWithWebIdentity",
	}, nil
}

// readToken is asked each time: Kubernetes replaces the file before the token expires.
func readToken(file string) (string, error) {
	token, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read the service account's token: %w", err)
	}
	return strings.TrimSpace(string(token)), nil
}
