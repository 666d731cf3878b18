package listener

import (
	"errors"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
	"github.com/lastgasp/lastgasp/listener/yamlkeys"
)

// week bounds times: anything longer is a typing error.
const week = 7 * 24 * time.Hour

// What addresses and annotation keys must be.
const (
	bindable       = `an address to bind; write [host]:port, for instance ":6666" or "127.0.0.1:9666"`
	annotationForm = "an annotation key; write [domain/]name"
)

func clusterName(text string) (string, bool) { return text, netconsole.ValidCluster(text) }

func bindAddress(text string) (string, bool) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return "", false
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", false
	}
	if _, err := netip.ParseAddr(host); host != "" && err != nil {
		return "", false
	}
	return text, true
}

func readListen(to *[]string) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		if err := yamlkeys.Values(to, bindable, bindAddress)(n); err != nil {
			return err
		}
		if len(*to) == 0 {
			return errors.New("the list is empty; name an address, or leave the key out for :6666")
		}
		return nil
	}
}

func receiverURL(text string) (string, bool) {
	u, err := url.Parse(text)
	return text, err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && u.User == nil
}

func absolutePath(text string) (string, bool) { return text, filepath.IsAbs(text) }

func shipTo(text string) (string, bool) { return text, text == Stdout || filepath.IsAbs(text) }

// authority reads an authority from kernel on, or "never", which no authority reaches.
func authority(text string) (detect.Authority, bool) {
	if text == "never" {
		return policy.Never, true
	}
	var a detect.Authority
	err := a.UnmarshalText([]byte(text))
	return a, err == nil && a >= detect.Kernel
}

// qualifiedName is the form of a key in Kubernetes (apimachinery/pkg/util/validation).
var qualifiedName = regexp.MustCompile(`^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`)

func annotationKey(text string) (string, bool) { return text, qualifiedName.MatchString(text) }

// readRules reads the user's rules and checks each against its examples.
func readRules(to *[]detect.Rule) func(*yaml.Node) error {
	return func(n *yaml.Node) error {
		items, err := yamlkeys.List(n)
		if err != nil {
			return err
		}
		*to = nil
		for _, item := range items {
			if item.Kind != yaml.MappingNode {
				return &yamlkeys.Error{Line: item.Line, Err: errors.New("a rule has keys; write cause, verdict, match, title and examples")}
			}
			var r detect.Rule
			if err := yamlkeys.Group(item, ruleKeys(&r)); err != nil {
				return err
			}
			if err := r.Compile(); err != nil {
				return &yamlkeys.Error{Line: item.Line, Err: err}
			}
			*to = append(*to, r)
		}
		return nil
	}
}

func verdict(text string) (detect.Verdict, bool) {
	var v detect.Verdict
	err := v.UnmarshalText([]byte(text))
	return v, err == nil
}

func ruleKeys(r *detect.Rule) yamlkeys.Keys {
	texts := func(to *[]string) func(*yaml.Node) error {
		return yamlkeys.Values(to, "a message; write text", func(text string) (string, bool) { return text, true })
	}
	return yamlkeys.Keys{
		"cause":           yamlkeys.Text(&r.Cause),
		"verdict":         yamlkeys.Value(&r.Verdict, "a verdict; write dying, oops or sick", verdict),
		"match":           yamlkeys.Text(&r.Match),
		"title":           yamlkeys.Text(&r.Title),
		"remedy":          yamlkeys.Text(&r.Remedy),
		"examples":        texts(&r.Examples),
		"counterexamples": texts(&r.Counterexamples),
	}
}
