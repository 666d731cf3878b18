package cloud

import (
	"context"
	"errors"
	"fmt"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/smithy-go"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// Instances are the machines of EC2. They are only known by id: a name may belong to another machine tomorrow.
type Instances struct{ Account *Account }

var _ cleanup.Instances = Instances{}

// Reboot implements cleanup.Instances. EC2 first asks the machine to reboot. It resets one that does not respond, as after a
// panic, within a few minutes.
func (i Instances) Reboot(ctx context.Context, id string) error {
	return i.call(ctx, "reboot", id, func(api *ec2.Client) error {
		_, err := api.RebootInstances(ctx, &ec2.RebootInstancesInput{InstanceIds: []string{id}})
		return err
	})
}

// Terminate implements cleanup.Instances. An instance that is terminated already is not an error.
func (i Instances) Terminate(ctx context.Context, id string) error {
	return i.call(ctx, "terminate", id, func(api *ec2.Client) error {
		_, err := api.TerminateInstances(ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{id}})
		return err
	})
}

// SetUnhealthy implements cleanup.Instances with the Auto Scaling group that has the instance. The group would otherwise ignore it
// in the first minutes of an instance (its health check grace period).
func (i Instances) SetUnhealthy(ctx context.Context, id string) error {
	return i.with(ctx, "set unhealthy", id, func(c *clients) error {
		_, err := c.groups.SetInstanceHealth(ctx, &autoscaling.SetInstanceHealthInput{
			InstanceId: &id, HealthStatus: sdk.String("Unhealthy"), ShouldRespectGracePeriod: sdk.Bool(false),
		})
		return err
	})
}

func (i Instances) call(ctx context.Context, verb, id string, call func(*ec2.Client) error) error {
	return i.with(ctx, verb, id, func(c *clients) error { return call(c.ec2) })
}

func (i Instances) with(ctx context.Context, verb, id string, call func(*clients) error) error {
	if !netconsole.IsInstanceID(id) {
		return fmt.Errorf("%s: %q is not the id of an EC2 instance: %w", verb, id, cleanup.ErrNotFound)
	}
	c, err := i.Account.clients(ctx)
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, id, err)
	}
	if err := call(c); err != nil {
		return fmt.Errorf("%s %s: %w", verb, id, explain(err))
	}
	return nil
}

// explain marks what AWS refuses for good, as opposed to faults that may pass, by
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html and
// https://docs.aws.amazon.com/autoscaling/ec2/APIReference/CommonErrors.html
func explain(err error) error {
	var refused smithy.APIError
	if !errors.As(err, &refused) {
		return err
	}
	switch refused.ErrorCode() {
	case "InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed":
		return fmt.Errorf("%w: %w", cleanup.ErrNotFound, shorten(err))
	case "AccessDenied", "ValidationError": // of Auto Scaling; the second means that the instance is in no group
		return fmt.Errorf("%w: %w", cleanup.ErrDenied, shorten(err))
	case "UnauthorizedOperation", "UnsupportedOperation", "IncorrectState", "IncorrectInstanceState",
		"OperationNotPermitted": // protected against termination
		return fmt.Errorf("%w: %w", cleanup.ErrDenied, shorten(err))
	}
	return shorten(err)
}
