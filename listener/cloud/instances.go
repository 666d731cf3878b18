package cloud

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"

	"github.com/aws/smithy-go"

	"github.com/lastgasp/lastgasp/listener/cleanup"
)

// Instances are the machines of EC2, known by id only: a name may be another machine's by tomorrow.
type Instances struct{ Account *Account }

var _ cleanup.Instances = Instances{}

// Reboot implements cleanup.Instances. EC2 asks the machine first, and resets one that does not obey, as after a panic it
// does not, within a few minutes.
func (i Instances) Reboot(ctx context.Context, id string) error {
	return i.act(ctx, "RebootInstances", id)
}

// Terminate implements cleanup.Instances. An instance that is terminated already is not an error.
func (i Instances) Terminate(ctx context.Context, id string) error {
	return i.act(ctx, "TerminateInstances", id)
}

// instanceID is the form of an EC2 instance id.
var instanceID = regexp.MustCompile(`^i-[0-9a-f]{8,17}$`)

func (i Instances) act(ctx context.Context, action, id string) error {
	if !instanceID.MatchString(id) {
		return fmt.Errorf("%s: %q is not the id of an EC2 instance: %w", action, id, cleanup.ErrNotFound)
	}
	err := i.Account.query(ctx, "ec2", i.Account.keys, url.Values{
		"Action": {action}, "Version": {"2016-11-15"}, "InstanceId.1": {id},
	}, nil)
	if err != nil {
		return fmt.Errorf("%s %s: %w", action, id, explain(err))
	}
	return nil
}

// explain tells what EC2 answers for good from what may pass, by
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
func explain(err error) error {
	var refused smithy.APIError
	if !errors.As(err, &refused) {
		return err
	}
	said := fmt.Errorf("%s: %s", refused.ErrorCode(), refused.ErrorMessage())
	switch refused.ErrorCode() {
	case "InvalidInstanceID.NotFound", "InvalidInstanceID.Malformed":
		return fmt.Errorf("%w: %w", cleanup.ErrNotFound, said)
	case "UnauthorizedOperation", "UnsupportedOperation", "IncorrectState", "IncorrectInstanceState",
		"OperationNotPermitted": // protected against termination
		return fmt.Errorf("%w: %w", cleanup.ErrDenied, said)
	}
	return said
}
