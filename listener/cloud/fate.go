package cloud

import (
	"context"
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/lastgasp/lastgasp/listener/cleanup"
	"github.com/lastgasp/lastgasp/listener/policy"
)

var _ cleanup.Fates = Instances{}

// Fate implements cleanup.Fates with DescribeInstances and DescribeInstanceStatus, each of this one instance.
func (i Instances) Fate(ctx context.Context, id string) (policy.Fate, error) {
	var f policy.Fate
	err := i.call(ctx, "describe", id, func(api *ec2.Client) error {
		out, err := api.DescribeInstances(ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{id}})
		if err != nil {
			return err
		}
		for _, r := range out.Reservations {
			for _, inst := range r.Instances {
				if sdk.ToString(inst.InstanceId) == id {
					f = fateOf(inst)
				}
			}
		}
		return nil
	})
	switch {
	case err != nil:
		return f, err
	case f.State == "":
		return f, fmt.Errorf("describe %s: EC2 does not know it: %w", id, cleanup.ErrNotFound)
	case f.State != string(types.InstanceStateNameRunning):
		return f, nil // checks are of instances that run
	}
	err = i.call(ctx, "check", id, func(api *ec2.Client) error {
		out, err := api.DescribeInstanceStatus(ctx, &ec2.DescribeInstanceStatusInput{InstanceIds: []string{id}})
		if err != nil {
			return err
		}
		for _, s := range out.InstanceStatuses {
			if sdk.ToString(s.InstanceId) == id {
				f.Impaired = impairedOf(s)
			}
		}
		return nil
	})
	return f, err
}

// fateOf reads an instance as DescribeInstances answers.
func fateOf(inst types.Instance) policy.Fate {
	f := policy.Fate{Launched: sdk.ToTime(inst.LaunchTime), Since: sinceOf(sdk.ToString(inst.StateTransitionReason))}
	if inst.State != nil {
		f.State = string(inst.State.Name)
	}
	if inst.StateReason != nil {
		f.Code, f.Reason = sdk.ToString(inst.StateReason.Code), sdk.ToString(inst.StateReason.Message)
	}
	return f
}

// transition is the time in a StateTransitionReason: "User initiated (2026-11-26 18:42:42 GMT)".
var transition = regexp.MustCompile(`\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) (?:GMT|UTC)\)`)

func sinceOf(reason string) time.Time {
	m := transition.FindStringSubmatch(reason)
	if m == nil {
		return time.Time{}
	}
	at, _ := time.Parse(time.DateTime, m[1])
	return at
}

// impairedOf says, always in the same order, which status checks fail, and what is scheduled; it is empty if all is well.
func impairedOf(s types.InstanceStatus) string {
	var all []string
	fails := func(what string, status types.SummaryStatus) {
		if status == types.SummaryStatusImpaired {
			all = append(all, "the "+what+" status check fails")
		}
	}
	if check := s.SystemStatus; check != nil {
		fails("system", check.Status)
	}
	if check := s.InstanceStatus; check != nil {
		fails("instance", check.Status)
	}
	if check := s.AttachedEbsStatus; check != nil {
		fails("attached EBS", check.Status)
	}
	for _, e := range s.Events {
		if text := sdk.ToString(e.Description); !strings.HasPrefix(text, "[Completed]") && !strings.HasPrefix(text, "[Canceled]") {
			all = append(all, fmt.Sprintf("%s is scheduled", e.Code))
		}
	}
	return strings.Join(all, ", ")
}

// maxConsole bounds the console text that is read. EC2 keeps 64 KiB.
const maxConsole = 128 << 10

// Console implements cleanup.Fates with GetConsoleOutput. Machines that are not on Nitro have no latest output: they answer
// UnsupportedOperation, which is a denial.
func (i Instances) Console(ctx context.Context, id string) (policy.Console, error) {
	var c policy.Console
	err := i.call(ctx, "read console of", id, func(api *ec2.Client) error {
		out, err := api.GetConsoleOutput(ctx, &ec2.GetConsoleOutputInput{InstanceId: sdk.String(id), Latest: sdk.Bool(true)})
		if err != nil {
			return err
		}
		text := sdk.ToString(out.Output)
		if decoded, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), "")); err == nil {
			text = string(decoded)
		}
		c = policy.Console{Text: text[max(0, len(text)-maxConsole):], At: sdk.ToTime(out.Timestamp)}
		return nil
	})
	return c, err
}
