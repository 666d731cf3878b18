package cloud

import (
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
)

// Parameters returns a client of its Parameter Store, for a test that plays the operator.
func (m *Moto) Parameters(region string) *ssm.Client {
	return ssm.New(ssm.Options{
		Region: region, BaseEndpoint: &m.URL, HTTPClient: m.Client(),
		Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "example", ""), // moto takes any
	})
}
