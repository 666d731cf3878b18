package cloud

import (
	"context"
	"fmt"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"
)

// read returns the parameter's value, false if there is no such parameter yet.
func read(ctx context.Context, api *ssm.Client, name string) (value string, exists bool, err error) {
	out, err := api.GetParameters(ctx, &ssm.GetParametersInput{Names: []string{name}})
	if err != nil {
		return "", false, fmt.Errorf("read %s: %w", name, shorten(err))
	}
	if len(out.Parameters) == 0 {
		return "", false, nil
	}
	return sdk.ToString(out.Parameters[0].Value), true, nil
}

// write replaces the parameter's value. It leaves the type of an existing parameter as it is.
func write(ctx context.Context, api *ssm.Client, name, value string, exists bool) error {
	in := &ssm.PutParameterInput{Name: &name, Value: &value, Overwrite: &exists}
	if !exists {
		in.Type = types.ParameterTypeString
		in.Description = sdk.String("Where nodes find lastgasp-listener; written by the listeners themselves.")
	}
	if _, err := api.PutParameter(ctx, in); err != nil {
		return fmt.Errorf("write %s: %w", name, shorten(err))
	}
	return nil
}
