package ec2

import (
	"os"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
)

// Credentials returns a provider that takes them from the environment, else from the instance's role through the client that
// metadata makes when it is needed. The SDK's own config package would find them in more places, and add 2 MB that a node has
// no use for.
func Credentials(metadata func() *Client) aws.CredentialsProvider {
	if id := os.Getenv("AWS_ACCESS_KEY_ID"); id != "" {
		return aws.NewCredentialsCache(
			credentials.NewStaticCredentialsProvider(id, os.Getenv("AWS_SECRET_ACCESS_KEY"), os.Getenv("AWS_SESSION_TOKEN")))
	}
	return aws.NewCredentialsCache(ec2rolecreds.New(func(o *ec2rolecreds.Options) { o.Client = metadata().IMDS }))
}
