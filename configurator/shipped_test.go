package configurator

import (
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"
)

// The cloud-init examples must be what the program prints, but for comments, and write what LoadConfig accepts.
func TestShippedUserData(t *testing.T) {
	files, err := filepath.Glob("../cloud-init/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			cfg := checkCloudConfig(t, cloudConfig(t, string(data)))
			if err := cfg.NeedEndpoint(file); err != nil {
				t.Error(err)
			}
		})
	}
}

// cloudConfig finds the text/cloud-config in a user-data, which may be a multi-part archive, or Karpenter's object with one
// in it. There it must be the last part: a later one of its kind would win.
func cloudConfig(t *testing.T, text string) string {
	t.Helper()
	var object struct {
		Spec struct {
			UserData string `yaml:"userData"`
		}
	}
	if strings.Contains(text, "\nkind: EC2NodeClass\n") {
		if err := yaml.Unmarshal([]byte(text), &object); err != nil {
			t.Fatal(err)
		}
		text = object.Spec.UserData
	}
	if strings.HasPrefix(text, "#cloud-config\n") {
		return text
	}
	message, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	kind, params, err := mime.ParseMediaType(message.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/mixed" {
		t.Fatalf("it is %q: %v", kind, err)
	}
	var last, lastKind string
	for parts := multipart.NewReader(message.Body, params["boundary"]); ; {
		part, err := parts.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(part)
		if err != nil {
			t.Fatal(err)
		}
		lastKind, _, err = mime.ParseMediaType(part.Header.Get("Content-Type"))
		if err != nil {
			t.Fatal(err)
		}
		last = string(body)
	}
	if lastKind != "text/cloud-config" {
		t.Fatalf("its last part is %q", lastKind)
	}
	return last
}

// checkCloudConfig returns the configuration that a #cloud-config writes, having checked that it is printed for it.
func checkCloudConfig(t *testing.T, text string) Config {
	t.Helper()
	var doc struct {
		WriteFiles []struct{ Path, Content string } `yaml:"write_files"`
	}
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.WriteFiles) != 1 || doc.WriteFiles[0].Path != userDataFile {
		t.Fatalf("writes %+v, want one file %s", doc.WriteFiles, userDataFile)
	}
	dropin := filepath.Join(t.TempDir(), "50-user-data.yaml")
	if err := os.WriteFile(dropin, []byte(doc.WriteFiles[0].Content), 0o644); err != nil {
		t.Fatal(err)
	}
	cfg, err := LoadConfig(dropin, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	want, err := UserData(cfg)
	if err != nil {
		t.Fatal(err)
	}
	comments := regexp.MustCompile(`(?m)^#( .*)?\n`)
	if diff := cmp.Diff(strings.TrimSpace(want), strings.TrimSpace(comments.ReplaceAllString(text, ""))); diff != "" {
		t.Errorf("not what the program prints (-want +got):\n%s", diff)
	}
	return cfg
}

func TestUserDataMIME(t *testing.T) {
	want, err := LoadConfig("testdata/valid.yaml", nil, []string{"[fd00::10]:6666", "10.0.2.10:6666"})
	if err != nil {
		t.Fatal(err)
	}
	text, err := UserDataMIME(want)
	if err != nil {
		t.Fatal(err)
	}
	got := checkCloudConfig(t, cloudConfig(t, text))
	got.Endpoint.StaticOrigin = want.Endpoint.StaticOrigin
	if diff := cmp.Diff(want, got, samePrefix); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
}

// The launch template's user-data has the cluster's name in place of ${ClusterName}, and is otherwise what the program prints.
func TestShippedNodeGroup(t *testing.T) {
	data, err := os.ReadFile("../packaging/nodes/managed-node-group.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var template struct {
		Resources struct {
			LaunchTemplate struct {
				Properties struct {
					LaunchTemplateData struct {
						UserData map[string]string `yaml:"UserData"`
					} `yaml:"LaunchTemplateData"`
				} `yaml:"Properties"`
			} `yaml:"LaunchTemplate"`
		} `yaml:"Resources"`
	}
	if err := yaml.Unmarshal(data, &template); err != nil {
		t.Fatal(err)
	}
	text := template.Resources.LaunchTemplate.Properties.LaunchTemplateData.UserData["Fn::Base64"]
	cfg := checkCloudConfig(t, cloudConfig(t, strings.ReplaceAll(text, "${ClusterName}", "prod-1")))
	if cfg.Cluster != "prod-1" {
		t.Errorf("cluster %q", cfg.Cluster)
	}
}

// What the DaemonSet has in its environment is a configuration.
func TestShippedDaemonSet(t *testing.T) {
	data, err := os.ReadFile("../packaging/kubernetes/nodes/kustomization.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var k struct {
		Generators []struct{ Literals []string } `yaml:"configMapGenerator"`
	}
	if err := yaml.Unmarshal(data, &k); err != nil {
		t.Fatal(err)
	}
	cfg, err := LoadConfig(DefaultConfigFile, k.Generators[0].Literals, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.NeedEndpoint(DefaultConfigFile); err != nil || cfg.Cluster != "prod-1" || len(cfg.Endpoint.SSM) != 2 {
		t.Errorf("cluster %q, parameters %q: %v", cfg.Cluster, cfg.Endpoint.SSM, err)
	}
}
