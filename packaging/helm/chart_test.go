package helm

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// objects are manifests by kind and name.
type objects map[string]map[string]any

func (o objects) add(m map[string]any) {
	o[m["kind"].(string)+"/"+field(m, "metadata", "name").(string)] = m
}

// field follows keys and, where an element is a list, its first element.
func field(v any, path ...string) any {
	for _, key := range path {
		if list, ok := v.([]any); ok {
			v = list[0]
		}
		v = v.(map[string]any)[key]
	}
	return v
}

// helm is the path of Helm's program, which go.mod names as a tool.
type helm string

func newHelm(t *testing.T) helm {
	t.Helper()
	path, err := exec.CommandContext(t.Context(), "go", "tool", "-n", "helm").Output()
	if err != nil {
		t.Fatalf("build helm: %v", err)
	}
	return helm(strings.TrimSpace(string(path)))
}

// run returns what Helm prints to standard output. Its notes about symbolic links go to standard error.
func (h helm) run(t *testing.T, args ...string) ([]byte, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), string(h), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Log(stderr.String())
	}
	return out, err
}

// template is `helm template` of the chart.
func (h helm) template(t *testing.T, args ...string) objects {
	t.Helper()
	out, err := h.run(t, append([]string{"template", "lastgasp", "lastgasp"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, out)
}

func parse(t *testing.T, text []byte) objects {
	t.Helper()
	out := objects{}
	for d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096); ; {
		var m map[string]any
		err := d.Decode(&m)
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if m != nil {
			out.add(m)
		}
	}
}

// kustomize renders an overlay of a directory below packaging, whose path is PACKAGING in the overlay.
func kustomize(t *testing.T, dir string, overlay string) objects {
	t.Helper()
	packaging, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	if packaging, err = filepath.Rel(tmp, packaging); err != nil { // kustomize wants it relative
		t.Fatal(err)
	}
	text := "resources: [" + filepath.Join(packaging, dir) + "]\n" + strings.ReplaceAll(overlay, "PACKAGING", packaging)
	if err := os.WriteFile(filepath.Join(tmp, "kustomization.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	all, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), tmp)
	if err != nil {
		t.Fatal(err)
	}
	out, err := all.AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, out)
}

// alike removes how each of the two rolls the Deployment when listener.yaml changes, and turns listener.yaml into what it
// means: its comments do not pass through Helm.
func alike(t *testing.T, o objects) objects {
	t.Helper()
	hash := regexp.MustCompile(`^listener-[0-9a-z]{10}$`)
	out := objects{}
	for _, m := range o {
		meta := m["metadata"].(map[string]any)
		switch m["kind"] {
		case "Namespace":
			continue
		case "ConfigMap":
			if data, ok := m["data"].(map[string]any)["listener.yaml"]; ok {
				meta["name"] = hash.ReplaceAllString(meta["name"].(string), "listener")
				var config map[string]any
				if err := yaml.Unmarshal([]byte(data.(string)), &config); err != nil {
					t.Fatal(err)
				}
				m["data"] = config
			}
		case "Deployment":
			delete(field(m, "spec", "template", "metadata").(map[string]any), "annotations")
			for _, v := range field(m, "spec", "template", "spec", "volumes").([]any) {
				if c, ok := v.(map[string]any)["configMap"].(map[string]any); ok {
					c["name"] = hash.ReplaceAllString(c["name"].(string), "listener")
				}
			}
		case "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "FlowSchema":
			delete(meta, "namespace") // kustomize does not know that these have none; the API server drops it
		case "CustomResourceDefinition":
			delete(meta, "annotations") // helm.sh/resource-policy
		}
		out.add(m)
	}
	return out
}

// components is the part of an overlay that names components of packaging/kubernetes.
func components(names ...string) string {
	text := "components:\n"
	for _, name := range names {
		text += "- PACKAGING/kubernetes/" + name + "\n"
	}
	return text
}

// withPage is the part of an overlay that the component page tells people to write.
func withPage(t *testing.T) string {
	t.Helper()
	component, err := os.ReadFile("../kubernetes/page/kustomization.yaml")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^#   (page: .*)$`).FindSubmatch(component)
	if line == nil {
		t.Fatal("the component page does not say what listener.yaml needs")
	}
	base, err := os.ReadFile("../kubernetes/base/listener.yaml")
	if err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal("listener.yaml=" + string(base) + string(line[1]) + "\n")
	if err != nil {
		t.Fatal(err)
	}
	return "configMapGenerator:\n- {name: listener, namespace: lastgasp, behavior: replace, literals: [" + string(config) + "]}\n"
}

func TestChartRendersWhatKustomizeRenders(t *testing.T) {
	h := newHelm(t)
	const flowSchema = `
replacements:
- source: {kind: ServiceAccount, name: listener, fieldPath: metadata.namespace}
  targets:
  - select: {kind: FlowSchema, name: lastgasp-listener}
    fieldPaths: [spec.rules.0.subjects.0.serviceAccount.namespace]
`
	for _, tt := range []struct {
		name, dir, overlay string
		args               []string
	}{
		{"as shipped", "kubernetes", "", []string{"--namespace=lastgasp"}},
		{"in an existing namespace", "kubernetes/base", "namespace: monitoring\n" + flowSchema, []string{"--namespace=monitoring"}},
		{"on the host network", "kubernetes/host-network", "", []string{"--namespace=lastgasp", "--set=hostNetwork=true"}},
		{
			"with an image", "kubernetes", "images: [{name: lastgasp-listener, newName: registry.example/l, newTag: v1}]",
			[]string{"--namespace=lastgasp", "--set=image.repository=registry.example/l,image.tag=v1"},
		},
		{"with Karpenter", "kubernetes", components("karpenter"), []string{"--namespace=lastgasp", "--set=karpenter=true"}},
		{
			"with the page", "kubernetes", components("page") + withPage(t),
			[]string{"--namespace=lastgasp", "--set=page.secret=listener-page"},
		},
		{
			"with everything, elsewhere", "kubernetes/base", "namespace: monitoring\n" + flowSchema + components("karpenter", "page") + withPage(t),
			[]string{"--namespace=monitoring", "--set=karpenter=true,page.secret=listener-page"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want, got := alike(t, kustomize(t, tt.dir, tt.overlay)), alike(t, h.template(t, tt.args...))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-kustomize +helm)\n%s", diff)
			}
		})
	}
	t.Run("monitoring", func(t *testing.T) {
		got := h.template(t, "--namespace=lastgasp", "--set=monitoring.podMonitor=true,monitoring.rules=true,monitoring.dashboard=true")
		for name, want := range kustomize(t, "monitoring", "") {
			if diff := cmp.Diff(want, got[name]); diff != "" {
				t.Errorf("%s (-kustomize +helm)\n%s", name, diff)
			}
		}
	})
}

// An overlay that renames everything must leave no reference to a former name: a policy would bind nobody.
func TestKustomizeNames(t *testing.T) {
	all := kustomize(t, "kubernetes", "namePrefix: team-\nnameSuffix: -b\n"+components("karpenter", "page"))
	names := map[string]bool{}
	for _, m := range all {
		names[m["kind"].(string)+" "+m["metadata"].(map[string]any)["name"].(string)] = true
	}
	bindings := 0
	for _, m := range all {
		spec, _ := m["spec"].(map[string]any)
		if m["kind"] != "ValidatingAdmissionPolicyBinding" {
			continue
		}
		bindings++
		if policy := spec["policyName"].(string); !names["ValidatingAdmissionPolicy "+policy] {
			t.Errorf("a binding of policy %s, which does not exist", policy)
		}
		if ref, ok := spec["paramRef"].(map[string]any); ok && !names["ClusterRoleBinding "+ref["name"].(string)] {
			t.Errorf("a binding by the subjects of %s, which does not exist", ref["name"])
		}
	}
	if bindings == 0 {
		t.Error("no binding was rendered")
	}
}

// The configurator's pods must not wait for ever on Nodes without a kernel of their own. They tolerate every taint.
func TestConfiguratorSkipsNodesWithoutAKernel(t *testing.T) {
	terms := field(kustomize(t, "kubernetes/nodes", "")["DaemonSet/configurator"], "spec", "template", "spec", "affinity", "nodeAffinity",
		"requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms").([]any)
	if len(terms) != 1 {
		t.Fatalf("%d terms: one that matches is enough", len(terms))
	}
	for _, label := range [][2]string{{"eks.amazonaws.com/compute-type", "fargate"}, {"type", "virtual-kubelet"}} {
		if !slices.ContainsFunc(field(terms[0], "matchExpressions").([]any), func(e any) bool {
			return field(e, "key") == label[0] && field(e, "operator") == "NotIn" && slices.Contains(field(e, "values").([]any), any(label[1]))
		}) {
			t.Errorf("%s=%s is not left out", label[0], label[1])
		}
	}
}

// Values that replace text of a manifest must find it there.
func TestChartValues(t *testing.T) {
	h := newHelm(t)
	for _, tt := range []struct {
		name, set string
		object    string
		want      []string
		not       string
	}{
		{
			"other annotation keys are allowed by the policy", "config.annotations.reason=example.com/why,config.annotations.by=example.com/by",
			"ValidatingAdmissionPolicy/lastgasp-listener-pods", []string{`['example.com/by', 'example.com/why']`}, `['']`,
		},
		{
			"another condition is allowed by the policy", "config.condition=KernelHealthy",
			"ValidatingAdmissionPolicy/lastgasp-listener-nodes", []string{`'KernelHealthy'`}, `'lastgasp.dev/KernelHealthy'`,
		},
		{
			"control-plane nodes are allowed by the policy", "config.controlPlane=true",
			"ValidatingAdmissionPolicy/lastgasp-listener-nodes",
			[]string{`false && 'node-role.kubernetes.io/control-plane' in `, `false && 'node-role.kubernetes.io/master' in `}, "",
		},
		{"config is merged", "config.cluster=prod-1,config.limits.nodes=7", "ConfigMap/listener", []string{"cluster: prod-1", "nodes: 7", "percent: 10"}, "nodes: 5"},
		{"the definition stays", "crds.keep=true", "CustomResourceDefinition/nodedeaths.lastgasp.dev", []string{`"helm.sh/resource-policy":"keep"`}, ""},
		{"the definition goes", "crds.keep=false", "CustomResourceDefinition/nodedeaths.lastgasp.dev", nil, "helm.sh/resource-policy"},
		{
			"the account has a role", `serviceAccount.annotations.eks\.amazonaws\.com/role-arn=arn:x`,
			"ServiceAccount/listener", []string{`"eks.amazonaws.com/role-arn":"arn:x"`}, "",
		},
		{
			"a digest wins", "image.tag=v1,image.digest=sha256:" + strings.Repeat("0", 64),
			"Deployment/listener", []string{"lastgasp-listener@sha256:000"}, "lastgasp-listener:v1",
		},
		{"datagrams come from the nodes' subnets", "networkPolicy.nodes={10.0.0.0/16,10.1.0.0/16}", "NetworkPolicy/listener", []string{`{"cidr":"10.0.0.0/16"}`, `{"cidr":"10.1.0.0/16"}`}, ""},
		{
			"more may be reached", "networkPolicy.egress[0].ports[0].port=80,networkPolicy.egress[0].to[0].ipBlock.cidr=169.254.170.23/32",
			"NetworkPolicy/listener", []string{`{"ports":[{"port":80}],"to":[{"ipBlock":{"cidr":"169.254.170.23/32"}}]}`, `{"port":6443,"protocol":"TCP"}`}, "",
		},
		{
			"the pod's ports are those of the config", "hostNetwork=true,config.listen={10.0.0.1:7777,:6666},config.admin=:7667", "Deployment/listener",
			[]string{`{"containerPort":7777,"name":"netconsole","protocol":"UDP"}`, `{"containerPort":7667,"name":"admin","protocol":"TCP"}`}, `"containerPort":6666`,
		},
		{
			"a balancer has fixed addresses", `service.annotations.service\.beta\.kubernetes\.io/aws-load-balancer-private-ipv4-addresses=10.0.1.66`,
			"Service/listener", []string{`"10.0.1.66"`, `"load_balancing.cross_zone.enabled=true"`}, "",
		},
		{
			"pods carry labels and annotations", "podLabels.team=sre,podAnnotations.note=x,env[0].name=AWS_REGION,env[0].value=eu-west-1",
			"Deployment/listener",
			[]string{`"team":"sre"`, `"app.kubernetes.io/name":"lastgasp-listener"`, `"note":"x"`, `"checksum/config":`, `{"name":"AWS_REGION","value":"eu-west-1"}`, `"name":"POD_NAME"`}, "",
		},
		{
			// A volume's name has no dots, and "config" is taken.
			"secrets are mounted", `secretMounts[0].secret=hook.prod,secretMounts[0].path=/etc/hook,secretMounts[1].secret=config,secretMounts[1].path=/etc/tls`,
			"Deployment/listener",
			[]string{
				`{"name":"secret-0","secret":{"secretName":"hook.prod"}}`, `{"mountPath":"/etc/hook","name":"secret-0","readOnly":true}`,
				`{"name":"secret-1","secret":{"secretName":"config"}}`, `{"mountPath":"/etc/tls","name":"secret-1","readOnly":true}`, `"mountPath":"/etc/lastgasp"`,
			}, "",
		},
		{
			"the page has its own port", "page.secret=listener-page,page.port=8443", "Deployment/listener",
			[]string{`{"containerPort":8443,"name":"page","protocol":"TCP"}`}, "9667",
		},
		{"listener.yaml names it", "page.secret=listener-page,page.port=8443", "ConfigMap/listener", []string{"address: :8443"}, "9667"},
		{"config wins over it", `page.secret=listener-page,config.page.address=127.0.0.1:9667`, "ConfigMap/listener", []string{"address: 127.0.0.1:9667", "tls.key"}, ""},
		{
			"the page is for some only", "page.secret=listener-page,page.from[0].ipBlock.cidr=10.0.0.0/8", "NetworkPolicy/listener",
			[]string{`{"from":[{"ipBlock":{"cidr":"10.0.0.0/8"}}],"ports":[{"port":"page","protocol":"TCP"}]}`}, "",
		},
		{
			"the page on the host network", "page.secret=listener-page,hostNetwork=true", "Service/listener-page", []string{`"targetPort":"page"`}, "",
		},
		{
			"nodeclaims may be deleted", "karpenter=true,config.node=nodeclaim", "ClusterRoleBinding/lastgasp-listener-nodeclaims",
			[]string{`"namespace":"lastgasp"`}, "",
		},
		{
			"more memory", "resources.limits.memory=1Gi,resources.requests.memory=1Gi,env[0].name=GOMEMLIMIT,env[0].value=800MiB",
			"Deployment/listener", []string{`{"limits":{"memory":"1Gi"},"requests":{"memory":"1Gi"}}`, `{"name":"GOMEMLIMIT","value":"800MiB"}`}, "400MiB",
		},
		{
			"nodes are selected", "nodeSelector.role=infra,tolerations[0].operator=Exists,priorityClassName=low",
			"Deployment/listener", []string{`"kubernetes.io/os":"linux"`, `"role":"infra"`, `"tolerations":[{"operator":"Exists"}]`, `"priorityClassName":"low"`}, "critical",
		},
		{"a node port", "service.type=NodePort", "Service/listener", []string{`"type":"NodePort"`, `"externalTrafficPolicy":"Local"`}, "loadBalancerClass"},
		{"another balancer", "service.loadBalancerClass=example.com/udp", "Service/listener", []string{`"loadBalancerClass":"example.com/udp"`}, "k8s.aws"},
		{
			"somebody else reads metrics", "networkPolicy.metricsFrom[0].podSelector.matchLabels.app=vmagent",
			"NetworkPolicy/listener", []string{`"podSelector":{"matchLabels":{"app":"vmagent"}}`}, "prometheus",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m, ok := h.template(t, "--namespace=lastgasp", "--set="+tt.set)[tt.object]
			if !ok {
				t.Fatalf("no %s", tt.object)
			}
			var b bytes.Buffer
			e := json.NewEncoder(&b)
			e.SetEscapeHTML(false)
			if err := e.Encode(m); err != nil {
				t.Fatal(err)
			}
			text := b.String()
			for _, want := range tt.want {
				if !strings.Contains(text, want) {
					t.Errorf("%s lacks %s:\n%s", tt.object, want, text)
				}
			}
			if tt.not != "" && strings.Contains(text, tt.not) {
				t.Errorf("%s still has %s:\n%s", tt.object, tt.not, text)
			}
		})
	}
}

// Schema and templates refuse what would only fail in the cluster.
func TestChartSchema(t *testing.T) {
	h := newHelm(t)
	for _, set := range []string{
		"config.node=nodeclaim", "config.pools[0].node=nodeclaim", "page.secret=A_B", "page.port=443", "page.from=all", "karpenter=maybe",
		"page.tls=true", "config.admin=127.0.0.1:9666", "config.admin=[::1]:9666", "networkPolicy.egress=all", "replicaCount=3", "image.digest=abc", "service.type=ClusterIP", "hostNetwork=maybe", "networkPolicy.nodes={10.0.0.1}", "monitoring.alerts=true",
	} {
		if _, err := h.run(t, "template", "lastgasp", "lastgasp", "--set="+set); err == nil {
			t.Errorf("%s is accepted", set)
		}
	}
	values, err := os.ReadFile("lastgasp/values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	schema, err := os.ReadFile("lastgasp/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	var v, s map[string]any
	if err := yaml.Unmarshal(values, &v); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(schema, &s); err != nil {
		t.Fatal(err)
	}
	known := s["properties"].(map[string]any)
	delete(known, "global")
	for key := range known {
		if _, ok := v[key]; !ok {
			t.Errorf("values.yaml lacks %s", key)
		}
	}
}

func TestChartLint(t *testing.T) {
	if out, err := newHelm(t).run(t, "lint", "--strict", "lastgasp"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// What is released renders like the directory, but for the version, and the same commit gives the same bits.
func TestPackagedChart(t *testing.T) {
	var archives [2][]byte
	var name string
	for i := range archives {
		dir := t.TempDir()
		cmd := exec.CommandContext(t.Context(), "../build", dir, "chart")
		cmd.Env = append(os.Environ(), "VERSION=1.2.3~rc1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		name = filepath.Join(dir, "lastgasp-1.2.3-rc1.tgz")
		var err error
		if archives[i], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("two builds differ")
	}
	h := newHelm(t)
	const all = "karpenter=true,page.secret=listener-page,monitoring.podMonitor=true,monitoring.rules=true,monitoring.dashboard=true"
	want, err := h.run(t, "template", "lastgasp", "lastgasp", "--set=image.tag=1.2.3-rc1,"+all)
	if err != nil {
		t.Fatal(err)
	}
	got, err := h.run(t, "template", "lastgasp", name, "--set="+all)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("(-directory +archive)\n%s", diff)
	}
}
