package configurator

import (
	"os"
	"path/filepath"
	"testing"

	"gopkg.in/yaml.v3"
)

// The cloud-init examples must write what LoadConfig accepts, where it is read.
func TestShippedUserDataIsAccepted(t *testing.T) {
	files, err := filepath.Glob("../cloud-init/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var doc struct {
				WriteFiles []struct{ Path, Content string } `yaml:"write_files"`
			}
			if err := yaml.Unmarshal(data, &doc); err != nil {
				t.Fatal(err)
			}
			if len(doc.WriteFiles) != 1 || doc.WriteFiles[0].Path != UserDataFile {
				t.Fatalf("writes %+v, want one file %s", doc.WriteFiles, UserDataFile)
			}
			dropin := filepath.Join(t.TempDir(), "50-user-data.yaml")
			if err := os.WriteFile(dropin, []byte(doc.WriteFiles[0].Content), 0o644); err != nil {
				t.Fatal(err)
			}
			c, err := LoadConfig(dropin, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.NeedEndpoint(file); err != nil {
				t.Error(err)
			}
		})
	}
}
