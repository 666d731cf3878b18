package cmd

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/lastgasp/lastgasp"

// architecture lists every package, and which of our packages it may import. A package that is not listed fails the test, and
// so does an entry without a package, so the table cannot go stale.
var architecture = map[string][]string{
	"cmd":                       {},
	"cmd/lastgasp-configurator": {"cmd/logger", "configurator", "configurator/canary", "configurator/configfs", "configurator/ec2", "configurator/endpoint", "configurator/enroll", "configurator/farewell", "configurator/lastboot", "configurator/machine", "configurator/nexthop", "listener/netconsole"},
	"cmd/lastgasp-listener":     {"cmd/logger", "listener", "listener/cleanup", "listener/cloud", "listener/detect", "listener/kube", "listener/netconsole", "listener/page", "listener/policy", "listener/receive", "listener/webhook"},
	"cmd/logger":                {},

	"configurator":          {"configurator/canary", "configurator/configfs", "configurator/ec2", "configurator/endpoint", "configurator/enroll", "configurator/lastboot", "configurator/machine", "configurator/nexthop", "listener/atomicfile", "listener/lazyregexp", "listener/netconsole", "listener/yamlkeys"},
	"configurator/canary":   {"configurator/machine", "listener/netconsole"},
	"configurator/lastboot": {"configurator/machine", "listener/atomicfile", "listener/detect", "listener/lazyregexp", "listener/netconsole"},
	"configurator/machine":  {"configurator/configfs", "listener/atomicfile", "listener/lazyregexp", "listener/netconsole"},
	"configurator/ec2":      {},
	"configurator/endpoint": {"configurator/configfs", "configurator/ec2", "listener/atomicfile", "listener/lazyregexp", "listener/yamlkeys"},
	"configurator/enroll":   {"configurator/ec2", "listener/atomicfile"},
	"configurator/farewell": {"configurator/ec2", "configurator/machine", "listener/lazyregexp", "listener/netconsole"},
	"configurator/nexthop":  {"configurator/configfs"},
	"configurator/configfs": {},

	"listener":               {"listener/atomicfile", "listener/cleanup", "listener/detect", "listener/lazyregexp", "listener/netconsole", "listener/policy", "listener/receive", "listener/yamlkeys"},
	"listener/yamlkeys":      {},
	"listener/atomicfile":    {},
	"listener/webhook":       {"listener/policy"},
	"listener/receive":       {"listener/detect", "listener/netconsole"},
	"listener/netconsole":    {},
	"listener/lazyregexp":    {},
	"listener/detect":        {"listener/lazyregexp", "listener/netconsole"},
	"listener/cloud":         {"listener/cleanup", "listener/netconsole", "listener/policy"},
	"listener/page":          {"listener/netconsole", "listener/policy"}, // it cannot write
	"listener/policy":        {"listener/detect", "listener/netconsole"},
	"listener/cleanup":       {"listener/atomicfile", "listener/detect", "listener/netconsole", "listener/policy"},
	"listener/kube":          {"listener/cleanup", "listener/detect", "listener/kube/v1alpha1", "listener/netconsole", "listener/policy"},
	"listener/kube/v1alpha1": {},

	"e2e/bench":         {"e2e/cloud", "e2e/crowd", "e2e/guest/control", "e2e/lab", "e2e/load", "e2e/story", "listener/detect", "listener/netconsole", "listener/receive"},
	"e2e/cloud":         {"e2e/cloud/imds", "e2e/lab"},
	"e2e/cloud/imds":    {},
	"e2e/corpus":        {"listener", "listener/detect"},
	"e2e/crowd":         {"e2e/lab", "e2e/load", "e2e/story", "listener/netconsole"},
	"e2e/demo":          {"e2e/lab", "e2e/story"},
	"e2e/guest":         {"e2e/guest/control"},
	"e2e/guest/control": {},
	"e2e/load":          {"listener/netconsole"},
	"e2e/lab":           {"e2e/guest/control"},
	"e2e/story":         {"configurator/lastboot", "e2e/lab", "e2e/load", "listener/kube/v1alpha1", "listener/netconsole"},
}

// thirdParty says which packages may import what from outside. Any package may import a prefix that is not listed.
var thirdParty = map[string][]string{
	"k8s.io/":                        {"listener/kube", "listener/kube/v1alpha1", "cmd/lastgasp-listener", "e2e"},
	"sigs.k8s.io/":                   {"listener/kube", "cmd/lastgasp-listener", "e2e"},
	"os/exec":                        {"configurator/configfs", "e2e"}, // modprobe
	"net/http/pprof":                 {"listener"},
	"github.com/aws":                 {"configurator/ec2", "configurator/endpoint", "configurator/enroll", "listener/cloud", "e2e"},
	"github.com/vishvananda/netlink": {"configurator/nexthop", "e2e"},
	"github.com/prometheus/":         {"listener", "cmd/lastgasp-listener"},
	"github.com/spf13/cobra":         {"cmd"},
	"github.com/coreos/go-systemd":   {"configurator", "listener/receive", "cmd"},
	"github.com/godbus/dbus":         {"configurator/farewell"},
	"gopkg.in/yaml.v3":               {"configurator", "configurator/endpoint", "configurator/enroll", "listener", "listener/cloud", "listener/yamlkeys"},
}

// standardOnly lists the pure packages, and what they must not import: besides third parties, whatever touches the world.
var standardOnly = map[string][]string{
	"listener/netconsole": {"net", "os", "syscall", "time/tzdata"},
	"listener/detect":     {"net", "os", "syscall"},
	"listener/page":       {"net", "os", "os/exec", "syscall", "html/template", "text/template"},
	"listener/policy":     {"net", "os", "syscall", "context", "sync"},
}

func TestImportTable(t *testing.T) {
	imports := importsByPackage(t, "..")
	for pkg, allowed := range architecture {
		if _, ok := imports[pkg]; !ok && pkg != "cmd" {
			t.Errorf("%s is in the import table but has no files", pkg)
		}
		for _, a := range allowed {
			if _, ok := architecture[a]; !ok {
				t.Errorf("%s may import %s, which is not in the import table", pkg, a)
			}
		}
	}
	for pkg, imps := range imports {
		allowed, ok := architecture[pkg]
		if !ok {
			t.Errorf("%s is not in the import table", pkg)
			continue
		}
		for _, imp := range imps {
			if own, ok := strings.CutPrefix(imp, module+"/"); ok {
				if !slices.Contains(allowed, own) {
					t.Errorf("%s must not import %s", pkg, own)
				}
				continue
			}
			for prefix, who := range thirdParty {
				if strings.HasPrefix(imp, prefix) && !slices.ContainsFunc(who, func(w string) bool { return within(pkg, w) }) {
					t.Errorf("%s must not import %s", pkg, imp)
				}
			}
			if denied, ok := standardOnly[pkg]; ok {
				if strings.Contains(strings.Split(imp, "/")[0], ".") || slices.Contains(denied, imp) {
					t.Errorf("%s must not import %s: it is pure", pkg, imp)
				}
			}
		}
	}
}

// TestConfiguratorIsLean walks every import of the node's binary through our own packages: it must not link client-go, nor compile
// regular expressions when it starts. detect compiles its rules when it is first asked.
func TestConfiguratorIsLean(t *testing.T) {
	imports := importsByPackage(t, "..")
	seen := map[string]bool{}
	var walk func(pkg string, via []string)
	walk = func(pkg string, via []string) {
		if seen[pkg] {
			return
		}
		seen[pkg] = true
		via = append(slices.Clone(via), pkg)
		for _, imp := range imports[pkg] {
			if strings.HasPrefix(imp, "k8s.io/") || strings.HasPrefix(imp, "sigs.k8s.io/") {
				t.Errorf("lastgasp-configurator links %s through %s", imp, strings.Join(via, " → "))
			}
			if imp == "regexp" && pkg != "listener/lazyregexp" && pkg != "listener/detect" {
				t.Errorf("%s must not import regexp but listener/lazyregexp: it is linked into lastgasp-configurator", pkg)
			}
			if own, ok := strings.CutPrefix(imp, module+"/"); ok {
				walk(own, via)
			}
		}
	}
	walk("cmd/lastgasp-configurator", nil)
	if len(seen) < 5 {
		t.Fatalf("saw only %d packages: the walk is broken", len(seen))
	}
}

// within reports whether pkg is dir or below it, so that "cmd" covers both commands. "listener" and "configurator" are only
// themselves.
func within(pkg, dir string) bool {
	return pkg == dir || strings.HasPrefix(pkg, dir+"/") && dir != "listener" && dir != "configurator"
}

// importsByPackage parses the imports of every non-test file below root. It does so in-process, so that the test cache notices
// a changed file. It skips nested modules and testdata.
func importsByPackage(t *testing.T, root string) map[string][]string {
	t.Helper()
	found := map[string][]string{}
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if file == root {
				return nil
			}
			if d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(file, "go.mod")); err == nil {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		pkg := path.Clean(filepath.ToSlash(rel))
		if _, ok := found[pkg]; !ok {
			found[pkg] = nil
		}
		for _, imp := range f.Imports {
			name, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				return err
			}
			if !slices.Contains(found[pkg], name) {
				found[pkg] = append(found[pkg], name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
