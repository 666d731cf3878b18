package configurator

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/lastgasp/lastgasp/configurator/endpoint"
	"github.com/lastgasp/lastgasp/configurator/machine"
)

// The first line of each testdata/invalid-*.yaml is what an operator sees, after the file's name.
func TestInvalidConfigIsRefusedInOneLine(t *testing.T) {
	files, err := filepath.Glob("testdata/invalid-*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no testdata: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			first, _, _ := strings.Cut(string(data), "\n")
			want := file + strings.TrimPrefix(first, "# ")
			_, err = LoadConfig(file, nil, nil)
			var config *ConfigError
			if !errors.As(err, &config) {
				t.Fatalf("error %v is not a *ConfigError", err)
			}
			if diff := cmp.Diff(want, err.Error()); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
		})
	}
}

func TestValidConfigSetsEveryKey(t *testing.T) {
	got, err := LoadConfig("testdata/valid.yaml", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	timeout := 10
	want := Config{
		Cluster: "prod-1",
		Endpoint: EndpointConfig{
			Static: []endpoint.Endpoint{
				{Host: "10.0.2.10", Port: 6666},
				{Host: "fd00::10", Port: 6666, Zone: "euw1-az2"},
			},
			StaticOrigin: "testdata/valid.yaml",
			SSM:          []string{"/lastgasp/{region}/{az-id}/endpoint", "/lastgasp/{cluster}/endpoint:live"},
			DNS:          "_lastgasp._udp.example.internal",
			Within:       []netip.Prefix{netip.MustParsePrefix("10.0.2.0/24"), netip.MustParsePrefix("fd00::/64")},
			Key:          someKey.Public().(ed25519.PublicKey),
		},
		Targets:   3,
		LocalPort: 6700,
		Canary:    CanaryConfig{Interval: 5 * time.Minute, Timeout: 2 * time.Second},
		Panic:     machine.Panic{Hold: true, Timeout: &timeout, KdumpNotifiers: true},
		Enroll:    EnrollConfig{Kubeconfig: "/etc/kubernetes/node.conf"},
		LastBoot:  LastBootConfig{KeepPstore: true},
	}
	if diff := cmp.Diff(want, got, samePrefix); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
}

// someKey is the first of RFC 8032's test vectors.
var someKey = ed25519.NewKeyFromSeed([]byte("\x9d\x61\xb1\x9d\xef\xfd\x5a\x60\xba\x84\x4a\xf4\x92\xec\x2c\xc4\x44\x49\xc5\x69\x7b\x32\x69\x19\x70\x3b\xac\x03\x1c\xae\x7f\x60"))

var samePrefix = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

func TestConfigPrecedence(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	main := write("configurator.yaml", "endpoint: {static: [10.0.0.1:6666]}\ntargets: 1\ncanary: {timeout: 1s}\n")
	write("configurator.d/90-late.yaml", "targets: 3\n")
	dropin := write("configurator.d/50-user-data.yaml", "endpoint: {static: [10.0.0.2:6666]}\ntargets: 4\n")

	for _, tt := range []struct {
		name    string
		environ []string
		flags   []string
		want    string // of the endpoint
		origin  string
		targets int
	}{
		{name: "drop-ins win over the file in lexical order", want: "10.0.0.2:6666", origin: dropin, targets: 3},
		{
			name:    "the environment wins over drop-ins",
			environ: []string{"PATH=/bin", "LASTGASP_ENDPOINT_STATIC=10.0.0.3:6666,10.0.0.4:6666", "LASTGASP_TARGETS=5", "LASTGASP_PANIC_HOLD="},
			want:    "10.0.0.3:6666", origin: "environment LASTGASP_ENDPOINT_STATIC", targets: 5,
		},
		{
			name:    "flags win over the environment",
			environ: []string{"LASTGASP_ENDPOINT_STATIC=10.0.0.3:6666"},
			flags:   []string{"10.0.0.5:6666", "10.0.0.6:6666"},
			want:    "10.0.0.5:6666", origin: "flag --endpoint", targets: 3,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := LoadConfig(main, tt.environ, tt.flags)
			if err != nil {
				t.Fatal(err)
			}
			if s := got.Endpoint.Static[0].String(); s != tt.want || got.Endpoint.StaticOrigin != tt.origin {
				t.Errorf("endpoint %s from %s, want %s from %s", s, got.Endpoint.StaticOrigin, tt.want, tt.origin)
			}
			if got.Targets != tt.targets {
				t.Errorf("targets %d, want %d", got.Targets, tt.targets)
			}
			if got.Canary.Timeout != time.Second {
				t.Errorf("canary.timeout %s: a key the drop-ins do not name was lost", got.Canary.Timeout)
			}
		})
	}
}

// What an editor leaves beside a drop-in is none: Emacs marks a file that is being edited by a link that leads nowhere.
func TestDropinsAreWhatAnOperatorHasWritten(t *testing.T) {
	main := filepath.Join(t.TempDir(), "configurator.yaml")
	dir := filepath.Join(filepath.Dir(main), "configurator.d")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"../configurator.yaml":   "targets: 1\n",
		"20-b.yaml":              "targets: 3\n",
		"10-a.yaml":              "targets: 2\nlocalPort: 7000\n",
		"30-c.yaml~":             "targets: 4\n",
		"30-c.yaml.dpkg-old":     "targets: 5\n",
		".30-c.yaml":             "targets: 6\n",
		"30-c.json":              "targets: 7\n",
		"15-d.yml":               "targets: 8\nlocalPort: 7100\n",
		".30-c.yaml.swp":         "\x00",
		"README":                 "read me\n",
		"40-crlf-and-a-bom.yaml": "\ufeffcluster: prod-1\r\ncanary:\r\n  interval: 1m\r\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("root@node.4711:1764194400", filepath.Join(dir, ".#10-a.yaml")); err != nil {
		t.Fatal(err)
	}
	got, err := LoadConfig(main, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.Targets != 3 || got.LocalPort != 7100 || got.Cluster != "prod-1" || got.Canary.Interval != time.Minute {
		t.Errorf("%+v", got)
	}
}

func TestConfigRefusals(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "configurator.yaml")
	if err := os.WriteFile(empty, []byte("# nothing\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	beside := filepath.Join(t.TempDir(), "configurator.yaml")
	for _, file := range []string{beside, strings.TrimSuffix(beside, ".yaml") + ".d"} {
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	pipe := filepath.Join(t.TempDir(), "pipe.yaml")
	if err := unix.Mkfifo(pipe, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		file    string
		environ []string
		flags   []string
		want    string // begins with
	}{
		{name: "a file that was named must exist", file: empty + ".missing",
			want: empty + ".missing: cannot be read: no such file or directory; check --config"},
		{name: "a link to something endless", file: "/dev/zero", want: "/dev/zero: cannot be read: it has more than 256 KiB; check --config"},
		{name: "a directory", file: filepath.Dir(empty), want: filepath.Dir(empty) + ": cannot be read: is a directory; check --config"},
		{name: "a file where the drop-ins should be", file: beside,
			want: strings.TrimSuffix(beside, ".yaml") + ".d: cannot be read: not a directory; it is the directory of drop-ins"},
		{name: "a named pipe", file: pipe, want: pipe + ": cannot be read: it is a named pipe that nobody writes to; put a file there; check --config"},
		{name: "an unknown variable is a typing error", file: empty, environ: []string{"LASTGASP_ENDPONT=10.0.2.10:6666"},
			want: "environment: LASTGASP_ENDPONT: is not a variable of lastgasp-configurator; use LASTGASP_CANARY_INTERVAL, "},
		{name: "a variable is checked like a key", file: empty, environ: []string{"LASTGASP_TARGETS=many"},
			want: `environment: LASTGASP_TARGETS: "many" is not a number from 1 to 8; write one`},
		{name: "a flag is checked like a key", file: empty, flags: []string{"listener"},
			want: `flag --endpoint: "listener" is not host:port; write it like 10.0.2.10:6666 or [fd00::10]:6666`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := LoadConfig(tt.file, tt.environ, tt.flags)
			if err == nil || !strings.HasPrefix(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q, want one line that begins with %q", err, tt.want)
			}
		})
	}
}

// TestConfigByProcessSubstitution: bash gives the end of a pipe for `--config <(decrypt configurator.yaml)`.
func TestConfigByProcessSubstitution(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	go func() {
		defer w.Close()
		io.WriteString(w, "targets: 3\n")
	}()
	if c, err := LoadConfig(fmt.Sprintf("/dev/fd/%d", r.Fd()), nil, nil); err != nil || c.Targets != 3 {
		t.Errorf("%d targets, %v", c.Targets, err)
	}
}

func TestNoListenerConfigured(t *testing.T) {
	c := DefaultConfig()
	if err := c.NeedEndpoint("f.yaml"); err == nil || !strings.HasPrefix(err.Error(), "f.yaml: endpoint: no listener is configured; ") {
		t.Errorf("error %v", err)
	}
	c.Endpoint.DNS = "_lastgasp._udp.example.internal"
	if err := c.NeedEndpoint("f.yaml"); err != nil {
		t.Errorf("with endpoint.dns: %v", err)
	}
}

// What user-data writes must read back as the configuration it was made from.
func TestUserDataRoundTrip(t *testing.T) {
	want, err := LoadConfig("testdata/valid.yaml", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := UserData(want)
	if err != nil {
		t.Fatal(err)
	}
	head, content, ok := strings.Cut(text, "    content: |\n")
	if !ok || !strings.HasPrefix(head, "#cloud-config\n"+mergeHow+"write_files:\n  - path: /etc/lastgasp/configurator.d/") {
		t.Fatalf("user-data:\n%s", text)
	}
	file := filepath.Join(t.TempDir(), "50-user-data.yaml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(content, "\n      ", "\n")[6:]), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := LoadConfig(file, nil, nil)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	got.Endpoint.StaticOrigin = want.Endpoint.StaticOrigin
	if diff := cmp.Diff(want, got, samePrefix); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
}

func FuzzConfig(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.yaml")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("a: &a {endpoint: *a}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := DefaultConfig()
		err := c.merge("f.yaml", data)
		if err != nil {
			if msg := err.Error(); strings.Contains(msg, "\n") || !strings.HasPrefix(msg, "f.yaml") {
				t.Errorf("message %q is not one line that names the file", msg)
			}
			return
		}
		if c.Targets < 1 || c.Canary.Timeout <= 0 || c.LocalPort <= sourcePorts {
			t.Errorf("accepted %+v", c)
		}
	})
}
