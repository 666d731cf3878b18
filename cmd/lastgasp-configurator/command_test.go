package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lastgasp/lastgasp/configurator"
	"github.com/lastgasp/lastgasp/configurator/configfs"
	"github.com/lastgasp/lastgasp/configurator/endpoint"
	"github.com/lastgasp/lastgasp/configurator/nexthop"
)

func TestExitCodes(t *testing.T) {
	wrap := func(err error) error { return fmt.Errorf("listener 10.0.2.10:6666: %w", err) }
	for _, tt := range []struct {
		name string
		err  error
		want int
	}{
		{"done", nil, 0},
		{"a listener that does not acknowledge", wrap(configurator.ErrUnproved), 1},
		{"anything else", errors.New("disk full"), 1},
		{"a bad configuration", &configurator.ConfigError{Origin: "f.yaml", Err: errors.New("bad")}, 2},
		{"no endpoint", fmt.Errorf("%w: ssm: timeout", endpoint.ErrNotFound), 3},
		{"no route", wrap(nexthop.ErrNoRoute), 3},
		{"a next hop that is silent", wrap(nexthop.ErrNoReply), 3},
		{"a device that cannot", wrap(nexthop.ErrUnusable), 4},
		{"a device that cannot yet", wrap(nexthop.ErrNotReady), 3},
		{"a driver that refuses", wrap(configfs.ErrDevice), 4},
		{"no module", wrap(configfs.ErrNoModule), 4},
		{"no configfs", wrap(configfs.ErrNoConfigfs), 4},
		{"unresolved weighs more than unproved", errors.Join(wrap(configurator.ErrUnproved), wrap(nexthop.ErrNoRoute)), 3},
		{"a device that cannot weighs more than both", errors.Join(wrap(nexthop.ErrNoRoute), wrap(configfs.ErrDevice)), 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stderr bytes.Buffer
			c := &command{stderr: &stderr, ran: true}
			if got := c.exit(tt.err); got != tt.want {
				t.Errorf("exit code %d, want %d", got, tt.want)
			}
			for line := range strings.Lines(stderr.String()) {
				if !strings.HasPrefix(line, "lastgasp-configurator: ") {
					t.Errorf("stderr line %q", line)
				}
			}
			if tt.err != nil && stderr.Len() == 0 {
				t.Error("it says nothing")
			}
		})
	}
}

// try runs a command line to its end, with a configuration file of this content.
func try(t *testing.T, config string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "configurator.yaml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	c := &command{stdout: &out, stderr: &errs, environ: []string{"LASTGASP_CONFIG=" + file}}
	root := c.root()
	root.SetArgs(args)
	code = c.exit(root.ExecuteContext(t.Context()))
	return code, out.String(), errs.String()
}

func TestServiceStatus(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"success has nothing to say", nil, "STATUS="},
		{"so has a command that has said it all", errSaid, "STATUS="},
		{"several errors are one line", errors.Join(errors.New("ssm: a"), errors.New("dns: b")), "STATUS=ssm: a; dns: b"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := serviceStatus(tt.err); got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestUsage(t *testing.T) {
	for _, tt := range []struct {
		name, config string
		args         []string
		code         int
		stdout       string // contains
		stderr       string // contains
	}{
		{name: "help says what exit codes mean", args: []string{"--help"}, stdout: "3  listener endpoint or next hop cannot be resolved"},
		{name: "the version says what it was built from", args: []string{"--version"}, stdout: "lastgasp-configurator version devel (commit "},
		{name: "an unknown command", args: []string{"aply"}, code: 2, stderr: `unknown command "aply"`},
		{name: "an unknown flag", args: []string{"apply", "--force"}, code: 2, stderr: "unknown flag: --force"},
		{name: "an argument too many", args: []string{"status", "now"}, code: 2, stderr: "lastgasp-configurator: run it with --help for usage"},
		{name: "an unknown format", args: []string{"status", "-o", "yaml"}, code: 2, stderr: "use text or json"},
		{name: "a root that is not there", args: []string{"status", "--chroot", "/nowhere/at/all"}, code: 2, stderr: "--chroot /nowhere/at/all: no such file or directory; mount the machine's root there"},
		{name: "a bad file", config: "targets: many\n", args: []string{"apply", "--textfile", ""}, code: 2, stderr: `configurator.yaml:1: targets: "many" is not a number`},
		{name: "no listener", args: []string{"apply", "--dry-run"}, code: 2, stderr: "configurator.yaml: endpoint: no listener is configured"},
		{name: "user-data", args: []string{"user-data", "--endpoint", "10.0.2.10:6666"}, stdout: "#cloud-config\nmerge_how:\n"},
		{name: "user-data for EKS and Karpenter", args: []string{"user-data", "--mime", "--endpoint", "[fd00::10]:6666"},
			stdout: "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"//\"\n\n--//\nContent-Type: text/cloud-config; charset=\"utf-8\"\n\n#cloud-config\n"},
		{name: "user-data for programs", args: []string{"user-data", "-o", "json", "--endpoint", "10.0.2.10:6666"}, stdout: `"userData": "#cloud-config\n`},
		{name: "completion of a format", args: []string{"__complete", "status", "-o", ""}, stdout: "text\njson\n:4\n",
			stderr: "ShellCompDirectiveNoFileComp"},
		{name: "completion", args: []string{"completion", "bash"}, stdout: "# bash completion"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := try(t, tt.config, tt.args...)
			if code != tt.code || !strings.Contains(stdout, tt.stdout) || !strings.Contains(stderr, tt.stderr) {
				t.Errorf("exit code %d\nstdout: %s\nstderr: %s", code, stdout, stderr)
			}
			if code == 2 && stdout != "" {
				t.Errorf("stdout of a usage error: %s", stdout)
			}
		})
	}
}

// With a bad configuration there is no pass to write metrics: those of a former boot must not go on calling this one covered.
func TestABadConfigurationCorrectsTheMetrics(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, configurator.MetricsFile)
	const former = "# what a former boot has left\n"
	if err := os.WriteFile(file, []byte(former), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		want bool // they are as they were
	}{{[]string{"apply", "--dry-run"}, true}, {[]string{"apply"}, false}} {
		code, _, stderr := try(t, "targets: many\n", append(tt.args, "--textfile", dir)...)
		text, err := os.ReadFile(file)
		if got := strings.Contains(string(text), former); code != 2 || err != nil || got != tt.want {
			t.Errorf("%q: exit code %d, %s: %s, %v", tt.args, code, stderr, text, err)
		}
	}
}

func TestWithoutChroot(t *testing.T) {
	got := withoutChroot([]string{"lastgasp-configurator", "--chroot", "/host", "watch", "--chroot=/host", "--disarm"})
	if want := []string{"lastgasp-configurator", "watch", "--disarm"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestEveryCommandHasHelp(t *testing.T) {
	c := &command{}
	for _, cmd := range c.root().Commands() {
		if cmd.Name() != "help" && cmd.Name() != "completion" && (cmd.Short == "" || cmd.Long == "") {
			t.Errorf("%s has none worth reading", cmd.Name())
		}
	}
}
