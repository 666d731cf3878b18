package listener

import (
	"strings"
	"testing"

	"github.com/lastgasp/lastgasp/listener/detect"
)

// FuzzConfig holds every config to an answer in one line that names the file.
func FuzzConfig(f *testing.F) {
	for _, name := range invalidConfigs(f) {
		f.Add(read(f, name))
	}
	f.Add(read(f, "../cmd/lastgasp-listener/listener.yaml"))
	f.Fuzz(func(t *testing.T, in []byte) {
		c, err := parseConfig("c.yaml", in)
		if err != nil {
			if msg := err.Error(); !strings.HasPrefix(msg, "c.yaml:") || strings.ContainsAny(msg, "\n\r") {
				t.Fatalf("error %q", msg)
			}
			return
		}
		if err := c.Policy.Validate(); err != nil {
			t.Fatalf("accepted a policy that is not valid: %v", err)
		}
		detect.NewSource(&c.Judge, nodeA)
	})
}
