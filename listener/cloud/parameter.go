package cloud

import (
	"context"
	"errors"
	"fmt"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/aws/smithy-go"
)

// parameters is a client of Parameter Store.
func (a *Account) parameters(ctx context.Context, region string) (*ssm.Client, error) {
	at, err := urlOf(ctx, "ssm", region)
	if err != nil {
		return nil, err
	}
	return ssm.New(ssm.Options{Region: region, BaseEndpoint: &at, Credentials: a.keys, HTTPClient: a.http}), nil
}

// read returns the parameter's value, false if there is no such parameter yet.
func read(ctx context.Context, store *ssm.Client, name string) (value string, exists bool, err error) {
	out, err := store.GetParameters(ctx, &ssm.GetParametersInput{Names: []string{name}})
	if err != nil {
		return "", false, fmt.Errorf("read %s: %w", name, shorten(err))
	}
	if len(out.Parameters) == 0 {
		return "", false, nil
	}
	return sdk.ToString(out.Parameters[0].Value), true, nil
}

// write replaces the parameter's value. The type of one that exists is somebody's choice.
func write(ctx context.Context, store *ssm.Client, name, value string, exists bool) error {
	in := &ssm.PutParameterInput{Name: &name, Value: &value, Overwrite: &exists}
	if !exists {
		in.Type = types.ParameterTypeString
		in.Description = sdk.String("Where nodes find lastgasp-listener; written by the listeners themselves.")
	}
	if _, err := store.PutParameter(ctx, in); err != nil {
		return fmt.Errorf("write %s: %w", name, shorten(err))
	}
	return nil
}

// shorten keeps of the SDK's errors what an operator can use.
func shorten(err error) error {
	var refused smithy.APIError
	if errors.As(err, &refused) {
		return fmt.Errorf("%s: %s", refused.ErrorCode(), refused.ErrorMessage())
	}
	return err
}
