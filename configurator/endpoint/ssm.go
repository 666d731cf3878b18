package endpoint

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/aws/smithy-go"

	"github.com/lastgasp/lastgasp/configurator/ec2"
)

// Place holds the values of the templates in parameter names. An empty value is unknown.
type Place struct {
	Region  string // {region}
	ZoneID  string // {az-id}
	Cluster string // {cluster}
}

// expand fills template in, false if it names something unknown.
func (p Place) expand(template string) (string, bool) {
	for _, v := range []struct{ name, value string }{
		{"{region}", p.Region}, {"{az-id}", p.ZoneID}, {"{cluster}", p.Cluster},
	} {
		if v.value == "" && strings.Contains(template, v.name) {
			return "", false
		}
		template = strings.ReplaceAll(template, v.name, v.value)
	}
	return template, true
}

// Parameter is the part of an SSM parameter that is read.
type Parameter struct {
	Name    string // as it was asked for, with its :version or :label
	Value   string
	Version int64
	Secure  bool // Value is encrypted
}

// SSM finds listeners in Systems Manager's Parameter Store, in the first of several parameters that exists.
type SSM struct {
	Names []string // templates, in order
	Place func(ctx context.Context) (Place, error)
	// Get returns those of the named parameters that exist, in any order. It is called once for all names.
	Get func(ctx context.Context, region string, names []string) ([]Parameter, error)
}

var _ Source = SSM{}

// Find implements Source.
func (s SSM) Find(ctx context.Context) ([]Endpoint, string, error) {
	place, err := s.Place(ctx)
	if err != nil {
		return nil, "ssm", err
	}
	var names []string
	for _, template := range s.Names {
		if name, ok := place.expand(template); ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, "ssm", fmt.Errorf("none of %s can be filled in here: %w", strings.Join(s.Names, ", "), ErrAbsent)
	}
	present, err := s.Get(ctx, place.Region, names)
	if err != nil {
		return nil, "ssm", err
	}
	for _, name := range names {
		i := slices.IndexFunc(present, func(p Parameter) bool { return p.Name == name })
		if i < 0 {
			continue
		}
		where := fmt.Sprintf("ssm %s version %d", name, present[i].Version)
		if present[i].Secure {
			return nil, where, errors.New("it is a SecureString, which is not decrypted here; store it as a String")
		}
		list, err := ParseList(present[i].Value)
		return list, where, err
	}
	return nil, "ssm", fmt.Errorf("%s does not exist: %w", strings.Join(names, ", "), ErrAbsent)
}

// GetParameters implements SSM.Get, with the credentials of ec2.Credentials and the settings of options.
func GetParameters(metadata func() *ec2.Client) func(ctx context.Context, region string, names []string) ([]Parameter, error) {
	return func(ctx context.Context, region string, names []string) ([]Parameter, error) {
		o, err := options(region)
		if err != nil {
			return nil, fmt.Errorf("ask ssm in %s: %w", region, err)
		}
		o.Credentials = ec2.Credentials(metadata)
		out, err := ssm.New(o).GetParameters(ctx, &ssm.GetParametersInput{Names: names})
		if err != nil {
			return nil, fmt.Errorf("ask ssm in %s for %s: %w", region, strings.Join(names, ", "), shorten(err))
		}
		var list []Parameter
		for _, p := range out.Parameters {
			list = append(list, Parameter{
				Name:    aws.ToString(p.Name) + aws.ToString(p.Selector),
				Value:   aws.ToString(p.Value),
				Version: p.Version,
				Secure:  p.Type == types.ParameterTypeSecureString,
			})
		}
		return list, nil
	}
}

// neverThrottled stops the SDK from retrying a throttled request: a fleet that retries at once stays throttled. The caller
// paces look-ups.
func neverThrottled(err error) aws.Ternary {
	var api smithy.APIError
	if errors.As(err, &api) && throttling(api) {
		return aws.FalseTernary
	}
	return aws.UnknownTernary
}

func throttling(err smithy.APIError) bool {
	_, ok := retry.DefaultThrottleErrorCodes[err.ErrorCode()]
	return ok
}

// shorten reduces the SDK's errors to what an operator can use, and marks throttling.
func shorten(err error) error {
	var api smithy.APIError
	switch {
	case !errors.As(err, &api):
		return err
	case throttling(api):
		return fmt.Errorf("%w: %s", ErrThrottled, api.ErrorMessage())
	case api.ErrorCode() == "AccessDeniedException":
		return fmt.Errorf("%s; allow ssm:GetParameters to the instance's role", api.ErrorMessage())
	}
	return fmt.Errorf("%s: %s", api.ErrorCode(), api.ErrorMessage())
}
