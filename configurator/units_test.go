package configurator

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// oldestSystemd is the version of RHEL 8, which the units are promised to work under.
const oldestSystemd = 239

// directive is one that our units use.
type directive struct {
	since int // first version of systemd that knows it, by its NEWS; 0: any that is still alive
	// sandbox means that a systemd that does not know it logs "Unknown lvalue", passes over it, and runs the same program with more
	// rights.
	sandbox bool
}

// directives is every one that our units use.
var directives = map[string]directive{
	"After": {}, "Also": {}, "Before": {}, "ConditionPathExists": {}, "Conflicts": {}, "DefaultDependencies": {}, "Description": {},
	"Documentation": {}, "PartOf": {}, "Requires": {}, "Wants": {}, "WantedBy": {},
	"RequiresMountsFor":     {since: 201},
	"StartLimitBurst":       {since: 230}, // in [Unit]
	"StartLimitIntervalSec": {since: 230},

	"EnvironmentFile": {}, "ExecReload": {}, "ExecStart": {}, "ExecStartPre": {}, "ExecStop": {}, "Nice": {}, "NotifyAccess": {},
	"OOMScoreAdjust": {}, "RemainAfterExit": {}, "Restart": {}, "RestartSec": {}, "TimeoutStartSec": {}, "TimeoutStopSec": {}, "Type": {},
	"UMask": {}, "WatchdogSec": {}, "ListenDatagram": {}, "ReceiveBuffer": {},
	"RestartPreventExitStatus": {since: 189},
	"RuntimeDirectory":         {since: 211},
	"DynamicUser":              {since: 232},
	"RuntimeDirectoryPreserve": {since: 235},
	"StateDirectory":           {since: 235},

	"CapabilityBoundingSet": {}, "DeviceAllow": {sandbox: true}, "DevicePolicy": {sandbox: true},
	"NoNewPrivileges":         {since: 187, sandbox: true},
	"PrivateNetwork":          {sandbox: true},
	"PrivateTmp":              {sandbox: true},
	"SystemCallFilter":        {since: 187, sandbox: true},
	"PrivateDevices":          {since: 209, sandbox: true},
	"SystemCallArchitectures": {since: 209, sandbox: true},
	"SystemCallErrorNumber":   {since: 209, sandbox: true},
	"RestrictAddressFamilies": {since: 211, sandbox: true},
	"ProtectHome":             {since: 214, sandbox: true},
	"ProtectSystem":           {since: 214, sandbox: true},
	"MemoryDenyWriteExecute":  {since: 231, sandbox: true},
	"RestrictRealtime":        {since: 231, sandbox: true},
	"PrivateUsers":            {since: 232, sandbox: true},
	"ProtectControlGroups":    {since: 232, sandbox: true},
	"ProtectKernelModules":    {since: 232, sandbox: true},
	"ProtectKernelTunables":   {since: 232, sandbox: true},
	"RemoveIPC":               {since: 232, sandbox: true},
	"RestrictNamespaces":      {since: 233, sandbox: true},
	"LockPersonality":         {since: 235, sandbox: true},
	"ProtectHostname":         {since: 242, sandbox: true},
	"RestrictSUIDSGID":        {since: 242, sandbox: true},
	"ProtectKernelLogs":       {since: 244, sandbox: true},
	"ProtectClock":            {since: 245, sandbox: true},
	"ProtectProc":             {since: 247, sandbox: true},
}

// The units work under the oldest systemd we promise: what it does not know is only part of the sandbox.
func TestUnitsWorkUnderOldSystemd(t *testing.T) {
	files, err := filepath.Glob("../systemd/*.s*") // services and sockets
	if err != nil || len(files) < 7 {
		t.Fatalf("%d units: %v", len(files), err)
	}
	used := make(map[string]bool)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, fault := range tooNew(string(data), oldestSystemd, used) {
			t.Errorf("%s: %s", filepath.Base(file), fault)
		}
	}
	for name := range directives {
		if !used[name] {
			t.Errorf("no unit uses %s= any more: remove it from the table", name)
		}
	}
}

// tooNew says what of a unit a version of systemd does not know and the unit cannot do without. It notes the directives in used.
func tooNew(unit string, version int, used map[string]bool) []string {
	var faults []string
	values := make(map[string][]string)
	for line := range strings.Lines(unit) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.HasPrefix(name, "#") {
			continue
		}
		values[name] = append(values[name], value)
		used[name] = true
		d, known := directives[name]
		switch {
		case !known:
			faults = append(faults, name+"= is not in the table of this test")
		case d.since > version && !d.sandbox:
			faults = append(faults, fmt.Sprintf("%s= is known since systemd %d only", name, d.since))
		}
	}
	for _, v := range []struct {
		since int
		what  string
		uses  bool
	}{
		{239, "@system-service", slices.Contains(values["SystemCallFilter"], "@system-service")},
		{240, "Type=exec", slices.Contains(values["Type"], "exec")},
		{244, "Restart= of a oneshot unit, which is refused as a whole", slices.Contains(values["Type"], "oneshot") && values["Restart"] != nil},
		{244, "the prefix : of a command", strings.Contains(unit, "\nExecStart=:")},
		{245, "modprobe@.service", strings.Contains(unit, "modprobe@")},
		{253, "Type=notify-reload", slices.Contains(values["Type"], "notify-reload")},
	} {
		if v.uses && v.since > version {
			faults = append(faults, fmt.Sprintf("%s is known since systemd %d only", v.what, v.since))
		}
	}
	return faults
}

// The packages refuse an older one.
func TestPackagesRefuseOlderSystemd(t *testing.T) {
	for _, file := range []string{"../nfpm.yaml", "../packaging/nfpm-listener.yaml"} {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{fmt.Sprintf("systemd >= %d", oldestSystemd), fmt.Sprintf("systemd (<< %d)", oldestSystemd)} {
			if !strings.Contains(string(data), want) {
				t.Errorf("%s does not say %q", file, want)
			}
		}
	}
}

func TestTooNew(t *testing.T) {
	for _, tt := range []struct {
		name, unit string
		want       int
	}{
		{"what it knows", "[Service]\n# Type=exec\nType=oneshot\nStateDirectory=x\n", 0},
		{"a sandbox that it passes over", "[Service]\nProtectProc=invisible\n", 0},
		{"a directive that nobody has looked up", "[Service]\nExecCondition=/bin/true\n", 1},
		{"a type that it does not know", "[Service]\nType=exec\n", 1},
		{"a oneshot that is started again", "[Service]\nType=oneshot\nRestart=on-failure\n", 1},
		{"a unit that it does not have", "[Unit]\nWants=modprobe@netconsole.service\n", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := tooNew(tt.unit, oldestSystemd, make(map[string]bool)); len(got) != tt.want {
				t.Errorf("%q, want %d faults", got, tt.want)
			}
		})
	}
	if got := tooNew("[Service]\nStateDirectory=x\nSystemCallFilter=@system-service\n", 234, make(map[string]bool)); len(got) != 2 {
		t.Errorf("systemd 234: %q", got)
	}
}
