package cloud

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"
)

// templates are what we ship for AWS. These tests check what can be checked without AWS.
const templates = "../../packaging/aws"

// permissions lists everything that the templates allow anybody.
var permissions = []string{
	"autoscaling:SetInstanceHealth",
	"ec2:DescribeInstanceStatus",
	"ec2:DescribeInstances",
	"ec2:GetConsoleOutput",
	"ec2:RebootInstances",
	"ec2:TerminateInstances",
	"iam:PassRole",
	"ssm:DescribeInstanceInformation",
	"ssm:GetParameters",
	"ssm:ListCommandInvocations",
	"ssm:ListCommands",
	"ssm:PutParameter",
	"ssm:SendCommand",
	"ssm:StartAutomationExecution",
	"sts:AssumeRole",
}

// unbound are those that AWS has no resources for.
var unbound = []string{"ec2:DescribeInstanceStatus", "ec2:DescribeInstances", "ssm:DescribeInstanceInformation", "ssm:ListCommandInvocations", "ssm:ListCommands"}

func template(t *testing.T) *yaml.Node {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(templates, "cloudformation.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Content[0]
}

// child is the value at a path of keys and indices below n; it fails the test if there is none.
func child(t *testing.T, n *yaml.Node, path ...any) *yaml.Node {
	t.Helper()
	for depth, step := range path {
		var next *yaml.Node
		switch step := step.(type) {
		case int:
			if step < len(n.Content) {
				next = n.Content[step]
			}
		case string:
			next = value(n, step)
		}
		if next == nil {
			t.Fatalf("the template has no %v", path[:depth+1])
		}
		n = next
	}
	return n
}

// value is that of a key, nil if n does not have it.
func value(n *yaml.Node, key string) *yaml.Node {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

func keys(n *yaml.Node) []string {
	var names []string
	for i := 0; i < len(n.Content); i += 2 {
		names = append(names, n.Content[i].Value)
	}
	return names
}

// walk visits n and all below it.
func walk(n *yaml.Node, visit func(n *yaml.Node)) {
	visit(n)
	for _, c := range n.Content {
		walk(c, visit)
	}
}

var substituted = regexp.MustCompile(`\$\{([^}]+)\}`)

func TestReferencesResolve(t *testing.T) {
	doc := template(t)
	resources := keys(child(t, doc, "Resources"))
	conditions := keys(child(t, doc, "Conditions"))
	known := slices.Concat(resources, keys(child(t, doc, "Parameters")),
		[]string{"AWS::AccountId", "AWS::Partition", "AWS::Region"})
	used := map[string]bool{}
	want := func(n *yaml.Node, name string, among []string) {
		used[name] = true
		if !slices.Contains(among, name) {
			t.Errorf("line %d: there is no %s", n.Line, name)
		}
	}
	walk(doc, func(n *yaml.Node) {
		switch n.Tag {
		case "!Ref":
			want(n, n.Value, known)
		case "!GetAtt":
			name, _, _ := strings.Cut(n.Value, ".")
			want(n, name, resources)
		case "!Sub":
			for _, m := range substituted.FindAllStringSubmatch(n.Value, -1) {
				want(n, m[1], known)
			}
		case "!Condition":
			want(n, n.Value, conditions)
		case "!If":
			want(n, n.Content[0].Value, conditions)
		}
	})
	for _, section := range []string{"Resources", "Outputs"} {
		for _, name := range keys(child(t, doc, section)) {
			if c := value(child(t, doc, section, name), "Condition"); c != nil {
				want(c, c.Value, conditions)
			}
		}
	}
	for _, name := range slices.Concat(conditions, keys(child(t, doc, "Parameters"))) {
		if !used[name] {
			t.Errorf("nobody uses %s", name)
		}
	}
}

// Every statement allows, names what it is about, and is on the list.
func TestPermissionsAreFewAndBound(t *testing.T) {
	var found []string
	walk(child(t, template(t), "Resources"), func(n *yaml.Node) {
		effect := value(n, "Effect")
		if effect == nil {
			return
		}
		if effect.Value != "Allow" {
			t.Errorf("line %d: effect %s", n.Line, effect.Value)
		}
		var actions []string
		walk(child(t, n, "Action"), func(a *yaml.Node) {
			if a.Kind == yaml.ScalarNode && strings.Contains(a.Value, ":") {
				actions = append(actions, a.Value)
			}
		})
		if len(actions) == 0 {
			t.Errorf("line %d: it allows nothing", n.Line)
		}
		found = append(found, actions...)
		resource := value(n, "Resource")
		if resource == nil { // who may assume a role
			child(t, n, "Principal", "Service")
			child(t, n, "Condition", "StringEquals", "aws:SourceAccount")
			return
		}
		if bare := resource.Value == "*"; bare && slices.ContainsFunc(actions, func(a string) bool { return !slices.Contains(unbound, a) }) {
			t.Errorf("line %d: %v on every resource there is", n.Line, actions)
		}
		if strings.Contains(resource.Value, ":instance/") || strings.Contains(resource.Value, ":autoScalingGroup:") {
			if tag := child(t, n, "Condition", "StringEquals").Content[1]; tag.Tag != "!Ref" || tag.Value != "ClusterName" {
				t.Errorf("line %d: instances of another cluster, too", n.Line)
			}
		}
		if strings.Contains(resource.Value, ":parameter/") && !strings.HasSuffix(resource.Value, ":parameter/lastgasp/${ClusterName}/*") {
			t.Errorf("line %d: parameters of another cluster, too", n.Line)
		}
	})
	slices.Sort(found)
	if diff := cmp.Diff(permissions, slices.Compact(found)); diff != "" {
		t.Errorf("permissions (-want +got):\n%s", diff)
	}
}

// A change of the parameter has to reach every node, a few at a time, even if some of them fail.
func TestAChangeReloadsTheFleetAtAPace(t *testing.T) {
	doc := template(t)
	detail := child(t, doc, "Resources", "EndpointChanged", "Properties", "EventPattern", "detail")
	prefix := child(t, detail, "name", 0, "prefix").Value
	for _, operation := range []string{"Create", "Update"} {
		if !slices.ContainsFunc(child(t, detail, "operation").Content, func(n *yaml.Node) bool { return n.Value == operation }) {
			t.Errorf("the rule does not hear of %s", operation)
		}
	}
	if name := child(t, doc, "Resources", "Endpoint", "Properties", "Name").Value; !strings.HasPrefix(name, prefix) {
		t.Errorf("the rule is about %s…, the parameter is %s", prefix, name)
	}
	command := child(t, doc, "Resources", "FleetDocument", "Properties", "Content", "mainSteps", 0, "inputs")
	for key, want := range map[string]string{"DocumentName": "ReloadDocument", "MaxConcurrency": "50", "MaxErrors": "100%"} {
		if got := child(t, command, key).Value; got != want {
			t.Errorf("%s is %s, want %s", key, got, want)
		}
	}
	target := child(t, command, "Targets", 0)
	if tag := child(t, target, "Values", 0); child(t, target, "Key").Value != "tag:lastgasp" || tag.Tag != "!Ref" || tag.Value != "ClusterName" {
		t.Errorf("it reloads %s", tag.Value)
	}
	run := child(t, doc, "Resources", "ReloadDocument", "Properties", "Content", "mainSteps", 0, "inputs", "runCommand", 0).Value
	unit := run[strings.LastIndexByte(run, ' ')+1:]
	if !strings.HasPrefix(run, "systemctl reload") {
		t.Errorf("%q does not reload", run)
	}
	if _, err := os.Stat(filepath.Join("../../systemd", unit)); err != nil {
		t.Errorf("%q reloads what we do not ship: %v", run, err)
	}
}

func TestTheListenersPortIsOpenToNodes(t *testing.T) {
	rules := child(t, template(t), "Resources", "ListenerSecurityGroup", "Properties", "SecurityGroupIngress")
	var got []string
	for _, rule := range rules.Content {
		from := value(rule, "SourceSecurityGroupId")
		if from == nil {
			from = child(t, rule, "CidrIp")
		}
		got = append(got, fmt.Sprintf("%s %s-%s from %s", child(t, rule, "IpProtocol").Value, child(t, rule, "FromPort").Value,
			child(t, rule, "ToPort").Value, from.Value))
	}
	want := []string{"udp 6666-6666 from NodeSecurityGroupId", "tcp 9666-9666 from HealthCheckCidr"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
}

// The two templates are equivalent: each allows what the other allows, and for the same cluster only.
func TestTerraformAllowsTheSame(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(templates, "terraform/main.tf"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^.*(?:/lastgasp/|[tT]ag[:/]lastgasp").*$`).FindAllString(string(text), -1) {
		if !strings.Contains(m, "var.cluster_name") {
			t.Errorf("of another cluster, too: %s", m)
		}
	}
	var got []string
	for _, m := range regexp.MustCompile(`"((?:autoscaling|ec2|iam|ssm|sts):[A-Z][A-Za-z]+)"( =)?`).FindAllStringSubmatch(string(text), -1) {
		if m[2] == "" { // otherwise it is the key of a condition
			got = append(got, m[1])
		}
	}
	slices.Sort(got)
	if diff := cmp.Diff(permissions, slices.Compact(got)); diff != "" {
		t.Errorf("permissions (-want +got):\n%s", diff)
	}
}
