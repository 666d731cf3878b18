package enroll

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/lastgasp/lastgasp/configurator/ec2"
)

// execPart is a user's exec plug-in: a program that client-go would run for a token.
type execPart struct {
	Command string   `yaml:"command"`
	Args    []string `yaml:"args"`
	Env     []struct {
		Name  string `yaml:"name"`
		Value string `yaml:"value"`
	} `yaml:"env"`
}

// eksCluster is the cluster that a token is for.
type eksCluster struct {
	ID     string // its name, or its id on Outposts
	Region string // empty: the instance's own
}

// errExec is for a plug-in other than EKS's two, whose tokens are made here without running them.
var errExec = errors.New("its credentials come from a program, and enrolment runs none; " +
	"only aws eks get-token and aws-iam-authenticator token of the instance's own role are understood, " +
	"set enroll.kubeconfig to one with a client certificate or a token")

// eks returns the cluster for which a kubelet's plug-in on EKS asks for a token: aws eks get-token on Amazon Linux 2023,
// aws-iam-authenticator token before it. It refuses another role or profile, because the token would be another identity's.
func (e *execPart) eks() (*eksCluster, error) {
	refuse := func(why string) (*eksCluster, error) {
		return nil, fmt.Errorf("exec %s: %s: %w", strings.Join(append([]string{e.Command}, e.Args...), " "), why, errExec)
	}
	words, flags, err := e.arguments()
	if err != nil {
		return refuse(err.Error())
	}
	c := &eksCluster{Region: flags["region"]}
	switch program := filepath.Base(e.Command) + " " + words; program {
	case "aws eks get-token":
		c.ID = flags["cluster-name"]
		if c.ID == "" {
			c.ID = flags["cluster-id"]
		}
	case "aws-iam-authenticator token":
		c.ID = flags["cluster-id"]
	default:
		return refuse("it is not a plug-in of EKS")
	}
	if c.ID == "" {
		return refuse("it names no cluster")
	}
	for _, v := range e.Env {
		switch {
		case c.Region == "" && (v.Name == "AWS_REGION" || v.Name == "AWS_DEFAULT_REGION"):
			c.Region = v.Value
		case v.Name == "AWS_PROFILE", v.Name == "AWS_ACCESS_KEY_ID", v.Name == "AWS_ROLE_ARN",
			v.Name == "AWS_CONFIG_FILE", v.Name == "AWS_SHARED_CREDENTIALS_FILE":
			return refuse(v.Name + " is set")
		}
	}
	return c, nil
}

// arguments splits the command line into its words, and its flags by their long names.
func (e *execPart) arguments() (words string, flags map[string]string, err error) {
	short := map[string]string{"-i": "--cluster-id", "-r": "--role"}
	flags = map[string]string{}
	var list []string
	for args := e.Args; len(args) > 0; args = args[1:] {
		if !strings.HasPrefix(args[0], "-") {
			list = append(list, args[0])
			continue
		}
		name, value, whole := strings.Cut(args[0], "=")
		if long, ok := short[name]; ok {
			name = long
		}
		switch name {
		case "--cache": // aws-iam-authenticator's, has no value
			continue
		case "--cluster-name", "--cluster-id", "--region", "--output":
		default:
			return "", nil, fmt.Errorf("%s is not understood", name)
		}
		if !whole {
			if len(args) < 2 {
				return "", nil, fmt.Errorf("%s has no value", name)
			}
			args = args[1:]
			value = args[0]
		}
		flags[strings.TrimPrefix(name, "--")] = value
	}
	return strings.Join(list, " "), flags, nil
}

// token makes a bearer token for the cluster as aws-iam-authenticator does (pkg/token): a presigned GetCallerIdentity request
// that also signs the cluster's name. STS accepts it for 15 minutes, whatever X-Amz-Expires says; authenticators up to 0.3
// expect 60 there.
func (c *eksCluster) token(ctx context.Context, metadata func() *ec2.Client, credentials aws.CredentialsProvider) (string, error) {
	region := c.Region
	if region == "" {
		out, err := metadata().IMDS.GetRegion(ctx, &imds.GetRegionInput{})
		if err != nil {
			return "", fmt.Errorf("make a token for cluster %s: ask instance metadata for the region: %w", c.ID, err)
		}
		region = out.Region
	}
	client := sts.NewPresignClient(sts.New(sts.Options{Region: region, Credentials: credentials}))
	request, err := client.PresignGetCallerIdentity(ctx, &sts.GetCallerIdentityInput{}, func(o *sts.PresignOptions) {
		o.ClientOptions = append(o.ClientOptions, func(o *sts.Options) {
			o.APIOptions = append(o.APIOptions,
				smithyhttp.SetHeaderValue("x-k8s-aws-id", c.ID),
				smithyhttp.SetHeaderValue("X-Amz-Expires", "60")) // hoisted into the query
		})
	})
	if err != nil {
		return "", fmt.Errorf("make a token for cluster %s: %w", c.ID, err)
	}
	return "k8s-aws-v1." + base64.RawURLEncoding.EncodeToString([]byte(request.URL)), nil
}
