package configurator

import (
	"encoding/base64"
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"
)

// userDataFile is where cloud-init leaves its drop-in.
const userDataFile = "/etc/lastgasp/configurator.d/50-user-data.yaml"

// mergeHow makes cloud-init merge this part with the earlier parts of a user-data. By default (dict(replace)+list()+str()) the
// last part that has write_files wins. The merge_how of the later part counts.
const mergeHow = `merge_how:
  - name: list
    settings: [append]
  - name: dict
    settings: [no_replace, recurse_list]
`

// UserData returns cloud-init user-data that configures a node as c: one file, written before any ordinary unit starts, so
// that nothing has to be run. It holds only what differs from the defaults.
func UserData(c Config) (string, error) {
	content, err := yaml.Marshal(c.document())
	if err != nil {
		return "", fmt.Errorf("write user-data: %w", err)
	}
	var b strings.Builder
	b.WriteString("#cloud-config\n" + mergeHow + "write_files:\n")
	fmt.Fprintf(&b, "  - path: %s\n    permissions: \"0644\"\n    content: |\n", userDataFile)
	for line := range strings.Lines(string(content)) {
		b.WriteString("      " + line)
	}
	return b.String(), nil
}

// UserDataMIME is UserData as a multi-part archive, to which EKS and Karpenter add their own part.
func UserDataMIME(c Config) (string, error) {
	text, err := UserData(c)
	if err != nil {
		return "", err
	}
	// The boundary cannot occur: no line of the YAML document begins with it, and those below "content: |" are indented.
	return "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"//\"\n\n" +
		"--//\nContent-Type: text/cloud-config; charset=\"utf-8\"\n\n" + text + "\n--//--\n", nil
}

// document returns c as it is written in a file: the inverse of merge.
func (c Config) document() map[string]any {
	doc := make(map[string]any)
	set := func(differs bool, key string, value any) {
		if !differs {
			return
		}
		section, name, nested := strings.Cut(key, ".")
		if !nested {
			doc[key] = value
			return
		}
		if doc[section] == nil {
			doc[section] = make(map[string]any)
		}
		doc[section].(map[string]any)[name] = value
	}
	var static []any
	for _, e := range c.Endpoint.Static {
		if e.Zone == "" {
			static = append(static, e.String())
		} else {
			static = append(static, map[string]string{"address": e.String(), "zone": e.Zone})
		}
	}
	d := DefaultConfig()
	set(len(static) > 0, "endpoint.static", static)
	set(len(c.Endpoint.SSM) > 0, "endpoint.ssm", c.Endpoint.SSM)
	set(c.Endpoint.DNS != "", "endpoint.dns", c.Endpoint.DNS)
	var within []string
	for _, prefix := range c.Endpoint.Within {
		within = append(within, prefix.String())
	}
	set(c.Cluster != "", "cluster", c.Cluster)
	set(len(within) > 0, "endpoint.within", within)
	set(c.Endpoint.Key != nil, "endpoint.key", base64.StdEncoding.EncodeToString(c.Endpoint.Key))
	set(c.Queues != d.Queues, "queues", c.Queues)
	set(c.Targets != d.Targets, "targets", c.Targets)
	set(c.LocalPort != d.LocalPort, "localPort", c.LocalPort)
	set(c.Canary.Interval != d.Canary.Interval, "canary.interval", c.Canary.Interval.String())
	set(c.Canary.Timeout != d.Canary.Timeout, "canary.timeout", c.Canary.Timeout.String())
	set(c.Panic.Hold, "panic.hold", true)
	set(c.Panic.KdumpNotifiers, "panic.kdumpNotifiers", true)
	if c.Panic.Timeout != nil {
		set(true, "panic.timeout", *c.Panic.Timeout)
	}
	set(c.LastBoot.KeepPstore, "lastBoot.pstore", "keep")
	set(c.Enroll.Kubeconfig != "", "enroll.kubeconfig", c.Enroll.Kubeconfig)
	return doc
}
