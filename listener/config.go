package listener

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/policy"
	"github.com/lastgasp/lastgasp/listener/yamlkeys"
)

// DefaultConfigFile is read when no other is named; it may be absent.
const DefaultConfigFile = "/etc/lastgasp/listener.yaml"

// Stdout is the Config.Ship that means standard output.
const Stdout = "stdout"

// Config is the configuration: complete, validated, with defaults filled in.
type Config struct {
	Cluster     string             // name of the cluster, empty if it has none
	Listen      []string           // addresses of the UDP sockets
	Admin       string             // address of the HTTP server
	Page        PageConfig         // where else the page of deaths is served
	Kubernetes  bool               // false: deaths go to a directory and nothing is acted on
	Kubeconfig  string             // empty: the pod's own service account
	Records     string             // directory for deaths without Kubernetes
	KeyFile     string             // where Key is read from, empty for none
	Key         ed25519.PrivateKey // signs acknowledgements; nil: they are not signed
	Policy      policy.Policy
	Condition   string // type of the condition on Nodes that says whether the kernel is healthy
	Judge       detect.Config
	Ship        string // where all kernel records are written as JSON lines: Stdout or a file; empty for nowhere
	Annotations Annotations
	Announce    Announce
	Fate        bool // ask the cloud how boots ended that no kernel announced
	Webhook     Webhook
}

// Webhook says where an event for every death is sent; nowhere without a URL.
type Webhook struct {
	URL        string
	SecretFile string // holds the key that requests are signed with; empty: they are not signed
}

// Annotations are the keys under which a pod says why it died, empty for the default ones.
type Annotations struct{ Reason, Code, By string }

// PageConfig says where the page of deaths is served over TLS; an empty Address means nowhere.
type PageConfig struct{ Address, Cert, Key string }

// complete says what is wrong with c in a config, by its key.
func (p PageConfig) complete(c Config) (key string, err error) {
	switch {
	case p == PageConfig{}:
		return "", nil
	case p.Address == "":
		return "page", errors.New("has no address; write one, for instance \":9667\"")
	case p.Cert == "" || p.Key == "":
		return "page", errors.New("lacks cert or key; name the files of a certificate and its key in PEM")
	case !c.Kubernetes:
		return "page.address", errors.New("needs kubernetes: true; without a cluster nobody can say who may read")
	}
	return "", nil
}

// LoadConfig reads a config file and the key it names. A missing DefaultConfigFile is an empty one; any other missing file is
// an error.
func LoadConfig(path string) (Config, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && path == DefaultConfigFile {
		b, err = nil, nil
	}
	if err != nil {
		return Config{}, fmt.Errorf("read config: %w", err)
	}
	c, err := parseConfig(path, b)
	if err != nil || c.KeyFile == "" {
		return c, err
	}
	b, err = os.ReadFile(c.KeyFile)
	if err != nil {
		return Config{}, fmt.Errorf("read key: %w", err)
	}
	if c.Key, err = parseKey(b); err != nil {
		return Config{}, fmt.Errorf("read key: %s: %w", c.KeyFile, err)
	}
	return c, nil
}

// parseKey reads a private key as openssl writes it (PKCS #8, RFC 5958, in PEM).
func parseKey(text []byte) (ed25519.PrivateKey, error) {
	const remedy = "write one with: openssl genpkey -algorithm ed25519"
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("is not a private key in PEM; " + remedy)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w; %s", err, remedy)
	}
	ed, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("is not an Ed25519 key; " + remedy)
	}
	return ed, nil
}

func defaultConfig() Config {
	return Config{
		Listen:  []string{":6666"},
		Admin:   "127.0.0.1:9666",
		Records: "/var/lib/lastgasp",
		Policy:  policy.DefaultPolicy(),

		Condition: policy.KernelHealthy,
	}
}

// parseConfig checks a config. Its errors are one line each: file, line, key, what is wrong and what to do.
func parseConfig(path string, b []byte) (Config, error) {
	c := defaultConfig()
	lines, err := yamlkeys.Read(path, b, c.keys())
	if err != nil {
		return Config{}, err
	}
	if err := c.Policy.Validate(); err != nil {
		key, rest, _ := strings.Cut(err.Error(), ": ")
		return Config{}, lines.Locate(path, key, errors.New(rest))
	}
	if key, err := c.Announce.complete(c); err != nil {
		return Config{}, lines.Locate(path, key, err)
	}
	if key, err := c.Page.complete(c); err != nil {
		return Config{}, lines.Locate(path, key, err)
	}
	if c.Webhook.URL == "" && c.Webhook.SecretFile != "" {
		return Config{}, lines.Locate(path, "webhook", errors.New("url is missing; name the receiver"))
	}
	if c.Webhook.URL != "" && !c.Kubernetes {
		return Config{}, lines.Locate(path, "webhook", errors.New("it reports NodeDeaths, which need kubernetes: true; set that"))
	}
	if err := c.Judge.Compile(); err != nil {
		return Config{}, lines.Locate(path, "rules", err)
	}
	return c, nil
}

// keys reads every known key into c. A key that is absent from the file leaves c as it is.
func (c *Config) keys() yamlkeys.Keys {
	p := &c.Policy
	return yamlkeys.Keys{
		"cluster":      yamlkeys.Value(&c.Cluster, "the name of a cluster; use letters, digits, dots, hyphens and underscores", clusterName),
		"listen":       readListen(&c.Listen),
		"admin":        yamlkeys.Value(&c.Admin, bindable, bindAddress),
		"page.address": yamlkeys.Value(&c.Page.Address, bindable, bindAddress),
		"page.cert":    yamlkeys.Value(&c.Page.Cert, "the path of a file, from / on", absolutePath),
		"page.key":     yamlkeys.Value(&c.Page.Key, "the path of a file, from / on", absolutePath),
		"kubernetes":   yamlkeys.Bool(&c.Kubernetes),
		"kubeconfig":   yamlkeys.Text(&c.Kubeconfig),
		"records":      yamlkeys.Text(&c.Records),
		"key":          yamlkeys.Value(&c.KeyFile, "the path of a file, from / on; keep the key itself out of the config", absolutePath),

		"act.at":          readActAt(&p.ActAt),
		"act.corroborate": yamlkeys.Duration(&p.Corroborate, 0, week),
		"act.distrust":    yamlkeys.Duration(&p.Distrust, 0, week),
		"limits.nodes":    yamlkeys.Int(&p.MaxNodes, 0, 1_000_000),
		"limits.percent":  yamlkeys.Int(&p.MaxPercent, 0, 100),
		"limits.window":   yamlkeys.Duration(&p.Window, 0, week),
		"node":            readNodeVerb(&p.NodeVerb),
		"nodeTimeout":     yamlkeys.Duration(&p.AwaitTimeout, 0, week),
		"pods.keep":       yamlkeys.Duration(&p.KeepPods, 0, week),
		"pools":           readPools(&p.Pools),
		"condition":       yamlkeys.Value(&c.Condition, "the type of a node condition; write [domain/]Name", annotationKey),
		"keep.records":    yamlkeys.Int(&p.KeepRecords, 0, 1_000_000),
		"keep.for":        yamlkeys.Duration(&p.KeepRecordsFor, 0, 100*week),
		"controlPlane":    yamlkeys.Bool(&p.ControlPlane),
		"suspects.hold":   yamlkeys.Bool(&p.HoldSuspects),
		"ec2.afterPanic": yamlkeys.Word(&p.AfterPanic, "what to do with the instance; write none, reboot, terminate or unhealthy",
			policy.LeaveInstance, policy.RebootInstance, policy.TerminateInstance, policy.UnhealthyInstance),
		"cloud.fate": yamlkeys.Bool(&c.Fate),

		"rules":   readRules(&c.Judge.Rules),
		"ship.to": yamlkeys.Value(&c.Ship, "where records can be shipped to; write stdout or the path of a file, from / on", shipTo),

		"annotations.reason": yamlkeys.Value(&c.Annotations.Reason, annotationForm, annotationKey),
		"annotations.code":   yamlkeys.Value(&c.Annotations.Code, annotationForm, annotationKey),
		"annotations.by":     yamlkeys.Value(&c.Annotations.By, annotationForm, annotationKey),

		"announce.ssm":       yamlkeys.Value(&c.Announce.Parameter, "the name of a parameter; write one like /lastgasp/{cluster}/endpoint", parameterName),
		"announce.address":   yamlkeys.Value(&c.Announce.Address, "an address that nodes can reach; write host:port, for instance 10.0.2.10:6666", reachable),
		"webhook.url":        yamlkeys.Value(&c.Webhook.URL, "the URL of a receiver; write one like https://hooks.example.com/lastgasp", receiverURL),
		"webhook.secretFile": yamlkeys.Value(&c.Webhook.SecretFile, "the path of a file, from / on; keep the secret itself out of the config", absolutePath),

		"announce.zone": yamlkeys.Value(&c.Announce.Zone, "the id of an availability zone; write one like euw1-az1", zoneID),
	}
}
