package listener

import (
	"errors"
	"fmt"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/policy"
	"github.com/lastgasp/lastgasp/listener/yamlkeys"
)

func readActAt(to *detect.Authority) func(*yaml.Node) error {
	return yamlkeys.Value(to, "an authority to act at; write kernel, boot, claimed, pinned or never", authority)
}

func readNodeVerb(to *policy.NodeVerb) func(*yaml.Node) error {
	return yamlkeys.Word(to, "what to do with the node; write delete, nodeclaim, await or annotate",
		policy.NodeDelete, policy.NodeDeleteClaim, policy.NodeAwait, policy.NodeAnnotate)
}

// readPools reads what is different for some nodes. Whether a pool contradicts the rest is for policy.Policy.Validate.
func readPools(to *[]policy.Pool) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		items, err := yamlkeys.List(n)
		if err != nil {
			return err
		}
		*to = nil
		for _, item := range items {
			var p policy.Pool
			if err := yamlkeys.Group(item, yamlkeys.Keys{
				"selector": readSelector(&p.Selector),
				"act.at":   readActAt(&p.ActAt),
				"act.corroborate": func(n *yaml.Node) error {
					p.Corroborate = new(time.Duration)
					return yamlkeys.Duration(p.Corroborate, 0, week)(n)
				},
				"node":        readNodeVerb(&p.NodeVerb),
				"nodeTimeout": yamlkeys.Duration(&p.AwaitTimeout, time.Second, week),
			}); err != nil {
				return err
			}
			*to = append(*to, p)
		}
		return nil
	}
}

// readSelector reads labels with their values. It is no section of known keys: labels are the cluster's.
func readSelector(to *map[string]string) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		const want = "the labels of the pool's nodes; write {karpenter.sh/nodepool: gpu}"
		if n.Kind != yaml.MappingNode {
			return errors.New("is not " + want)
		}
		*to = map[string]string{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			label, value := n.Content[i], n.Content[i+1]
			if !qualifiedName.MatchString(label.Value) || value.Kind != yaml.ScalarNode || value.Tag == "!!null" {
				return &yamlkeys.Error{Line: label.Line, Err: fmt.Errorf("%q: is not one of %s", label.Value, want)}
			}
			(*to)[label.Value] = value.Value
		}
		return nil
	}
}
