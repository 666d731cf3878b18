package configurator

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"gopkg.in/yaml.v3"
)

// cloudFormation is a template, with the keys that AWS documents for it ("Template sections", "Parameters", "Outputs"). What a resource
// has is cfn-lint's to check (packaging/test).
type cloudFormation struct {
	Version     string `yaml:"AWSTemplateFormatVersion"`
	Description string `yaml:"Description"`
	Parameters  map[string]struct {
		Type                  string    `yaml:"Type"`
		Default               yaml.Node `yaml:"Default"`
		Description           string    `yaml:"Description"`
		AllowedPattern        string    `yaml:"AllowedPattern"`
		AllowedValues         []string  `yaml:"AllowedValues"`
		ConstraintDescription string    `yaml:"ConstraintDescription"`
		MinLength             int       `yaml:"MinLength"`
		MaxLength             int       `yaml:"MaxLength"`
		NoEcho                bool      `yaml:"NoEcho"`
	} `yaml:"Parameters"`
	Mappings   map[string]yaml.Node `yaml:"Mappings"`
	Conditions map[string]yaml.Node `yaml:"Conditions"`
	Resources  map[string]yaml.Node `yaml:"Resources"`
	Outputs    map[string]struct {
		Value       yaml.Node `yaml:"Value"`
		Description string    `yaml:"Description"`
		Condition   string    `yaml:"Condition"`
		Export      yaml.Node `yaml:"Export"`
	} `yaml:"Outputs"`
}

// component is the document of an EC2 Image Builder component, of the actions that ours uses ("Use the AWSTOE component document
// framework", "Action modules").
type component struct {
	SchemaVersion string `yaml:"schemaVersion"`
	Phases        []struct {
		Name  string `yaml:"name"`
		Steps []struct {
			Name           string    `yaml:"name"`
			Action         string    `yaml:"action"`
			TimeoutSeconds int       `yaml:"timeoutSeconds"`
			OnFailure      string    `yaml:"onFailure"`
			MaxAttempts    int       `yaml:"maxAttempts"`
			Inputs         yaml.Node `yaml:"inputs"`
		} `yaml:"steps"`
	} `yaml:"phases"`
}

// decode reads YAML that may have no key which v has not.
func decode(t *testing.T, text []byte, v any) {
	t.Helper()
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(v); err != nil {
		t.Error(err)
	}
}

func TestShippedTemplates(t *testing.T) {
	var files []string
	for _, pattern := range []string{"../packaging/nodes/*.yaml", "../packaging/aws/*.yaml"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("no templates %s: %v", pattern, err)
		}
		files = append(files, found...)
	}
	names := regexp.MustCompile(`!Ref "?([A-Za-z0-9:]+)|!GetAtt "?([A-Za-z0-9]+)|\$\{([A-Za-z0-9:]+)`)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var c cloudFormation
			decode(t, text, &c)
			if c.Version != "2010-09-09" || len(c.Resources) == 0 {
				t.Errorf("version %q, %d resources", c.Version, len(c.Resources))
			}
			for name, p := range c.Parameters {
				if p.Type == "" {
					t.Errorf("parameter %s has no type", name)
				}
			}
			for _, m := range names.FindAllSubmatch(text, -1) {
				name := string(slices.Concat(m[1], m[2], m[3]))
				_, parameter := c.Parameters[name]
				_, resource := c.Resources[name]
				if !parameter && !resource && !regexp.MustCompile(`^AWS::`).MatchString(name) {
					t.Errorf("%s is neither a parameter nor a resource", name)
				}
			}
		})
	}
}

func TestShippedImageBuilderComponent(t *testing.T) {
	text, err := os.ReadFile("../packaging/nodes/image-builder.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var template cloudFormation
	decode(t, text, &template)
	var resource struct {
		Properties struct {
			Data string `yaml:"Data"`
		} `yaml:"Properties"`
	}
	node := template.Resources["Component"]
	if err := node.Decode(&resource); err != nil {
		t.Fatal(err)
	}
	var c component
	decode(t, []byte(resource.Properties.Data), &c)
	if c.SchemaVersion != "1.0" {
		t.Errorf("schemaVersion %q, want 1.0", c.SchemaVersion)
	}
	var phases []string
	for _, p := range c.Phases {
		phases = append(phases, p.Name)
		for _, s := range p.Steps {
			inputs, err := yaml.Marshal(&s.Inputs)
			if err != nil {
				t.Fatal(err)
			}
			switch s.Action {
			case "ExecuteBash":
				var in struct {
					Commands []string `yaml:"commands"`
				}
				if decode(t, inputs, &in); len(in.Commands) == 0 {
					t.Errorf("step %s has no commands", s.Name)
				}
			case "S3Download":
				var in []struct {
					Source      string `yaml:"source"`
					Destination string `yaml:"destination"`
				}
				if decode(t, inputs, &in); len(in) == 0 || in[0].Source == "" || in[0].Destination == "" {
					t.Errorf("step %s downloads nothing", s.Name)
				}
			default:
				t.Errorf("step %s has the action %q, which this test does not know", s.Name, s.Action)
			}
		}
	}
	if !slices.Equal(phases, []string{"build", "validate"}) {
		t.Errorf("phases %q, want build and validate", phases)
	}
}
