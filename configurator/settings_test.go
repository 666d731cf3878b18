package configurator

import (
	"slices"
	"strings"
	"testing"

	"github.com/lastgasp/lastgasp/configurator/configfs"
	"github.com/lastgasp/lastgasp/configurator/machine"
)

// What the panic needs is set on every kernel that has netconsole, whether or not a target shows already what it can do.
func TestPanicSettingsAreWanted(t *testing.T) {
	for _, tt := range []struct {
		name   string
		module string // line of modules.dep
		loaded bool
		want   bool
	}{
		{"before the first target", "", true, true},
		{"before the module is loaded", "kernel/drivers/net/netconsole.ko:", false, true},
		{"but not on a kernel without netconsole", "", false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.write(t, "lib/modules/6.12.117-cloud-amd64/modules.dep", tt.module)
			if !tt.loaded {
				w.kernel.support = configfs.Support{}
			}
			node := w.node(listenerA)
			seconds := 3
			node.Config.Panic = machine.Panic{Timeout: &seconds}
			got := slices.ContainsFunc(node.WantedSettings(nil), func(s machine.Setting) bool { return s.File == panicFile && s.Set == "3" })
			if got != tt.want {
				t.Errorf("kernel.panic is wanted: %t, want %t", got, tt.want)
			}
		})
	}
}

// A loaded module without targets is no missing module.
func TestStatusWithoutTargets(t *testing.T) {
	w := newWorld(t)
	node := w.node(listenerA)
	w.routes = map[string]error{"10.0.2.10": errCable}
	if _, err := node.Apply(t.Context()); err == nil {
		t.Fatal("a pass without a route succeeded")
	}
	status, err := node.Status(nil)
	if err != nil || status.Verdict != Mute {
		t.Fatalf("verdict %s, %v", status.Verdict, err)
	}
	var text strings.Builder
	if err := status.WriteText(&text, node.Uptime()); err != nil {
		t.Fatal(err)
	}
	if want := "MUTE: no target is armed: a panic is not heard; mend what made the last pass fail: "; !strings.Contains(text.String(), want) {
		t.Errorf("%q is not in\n%s", want, text.String())
	}
}
