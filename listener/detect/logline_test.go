package detect

import (
	"testing"
	"time"
)

func TestParseLogLine(t *testing.T) {
	const uptime = 3591339 * time.Microsecond
	tests := []struct {
		name, line, text string
		uptime           time.Duration
		prefix           int
	}{
		{"dmesg", "[    3.591339] Kernel panic - not syncing: x", "Kernel panic - not syncing: x", uptime, -1},
		{"a frame keeps its space", "[    3.591339]  panic+0x118/0x2f4", " panic+0x118/0x2f4", uptime, -1},
		{"a line feed of a serial console", "[    3.591339] x\r\n", "x", uptime, -1},
		{"a long uptime", "[200100.000108] x", "x", 200100*time.Second + 108*time.Microsecond, -1},
		{"with the caller behind the time", "[    3.591339][    T1] x", "x", uptime, -1},
		{"with the caller apart", "[    3.591339] [  C12] x", "x", uptime, -1},
		{"with the priority", "<4>[    3.591339] x", "x", uptime, 4},
		{"with userspace's priority", "<12>[    3.591339] x", "x", uptime, 12},
		{"decoded", "kern  :emerg : [    3.591339] x", "x", uptime, 0},
		{"decoded, userspace's", "daemon:info  : [    3.591339] x", "x", uptime, 14},
		{"with the time to the line before", "[    3.591339 <    0.000012>] x", "x", uptime, -1},
		{"with that alone", "[  +0.000012] x", "x", -1, -1},
		{"with a date and that", "[Nov21 21:44] x", "x", -1, -1},
		{"with wall-clock time", "[Fri Nov 21 21:44:00 2025] x", "x", -1, -1},
		{"with an ISO date", "2025-11-21T21:44:00,123456+01:00 x", "x", -1, -1},
		{"without anything", "Kernel panic - not syncing: x", "Kernel panic - not syncing: x", -1, -1},
		{"a syslog", "Nov 21 21:44:00 node-1 kernel: [    3.591339] x", "x", uptime, -1},
		{"a syslog without uptime", "Nov  1 21:44:00 node-1 kernel: x", "x", -1, -1},
		{"a syslog with an ISO date", "2025-11-21T21:44:00.123456+01:00 node-1 kernel: x", "x", -1, -1},
		{"journalctl -o short-monotonic", "[    3.591339] node-1 kernel: x", "x", uptime, -1},
		{"behind the prompt of a serial console", "ip-10-0-1-5 login: [    3.591339] x", "x", uptime, -1},
		{"two words and a colon are text", "[    3.591339] nvme nvme0: x", "nvme nvme0: x", uptime, -1},
		{"six letters and a colon are text", "[    3.591339] random: crng init done: x", "random: crng init done: x", uptime, -1},
		{"a second time stamp is text", "[    3.591339] [   12.345678] x", "[   12.345678] x", uptime, -1},
		{"brackets with something else are text", "[  OK  ] Started x", "[  OK  ] Started x", -1, -1},
		{"so is a time that is none", "[    3.5913] x", "[    3.5913] x", -1, -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, ok := ParseLogLine(tt.line)
			if !ok || string(r.Text) != tt.text || r.Uptime != tt.uptime || r.Prefix != tt.prefix || r.Extended {
				t.Errorf("%+v, %t; want text %q, uptime %v, prefix %d", r, ok, tt.text, tt.uptime, tt.prefix)
			}
		})
	}
}

// What differs from line to line is no host: it would make each line another machine's.
func TestTheHostOfALine(t *testing.T) {
	const date, text = "2025-11-21T21:44:00Z ", "[    3.591339] x"
	for _, tt := range []struct{ line, host string }{
		{date + "node-1 " + text, "node-1"},
		{date + "node-1 kernel: " + text, "node-1"},
		{date + "10.0.1.5 " + text, "10.0.1.5"},
		{date + "10.0.1.5:40001 " + text, "10.0.1.5"},
		{date + "[fd00::5]:6665 " + text, "fd00::5"},
		{date + "fd00::5 " + text, "fd00::5"},
		{date + "c1 kernel: " + text, "c1"},
		{date + "kern.warn " + text, ""},
		{date + "WARN: kernel: " + text, ""},
		{date + "warning " + text, ""},
		{date + "W kernel: " + text, ""},
		{date + "1234: " + text, ""},
		{date + "T2349 " + text, ""},
		{date + "CPU3 " + text, ""},
		{date + "0x00001f40 " + text, ""},
		{date + "8cb8ddd1-6587-41f6-b567-0e9c46b29ec2 kernel: " + text, ""},
	} {
		r, ok := ParseLogLine(tt.line)
		host := ""
		for _, f := range r.Fields {
			if f.Key == KeyHost {
				host = f.Value
			}
		}
		if !ok || host != tt.host {
			t.Errorf("%s: %t, host %q, want %q", tt.line, ok, host, tt.host)
		}
	}
}

func TestLinesThatAreNotTheKernels(t *testing.T) {
	for _, line := range []string{
		"",
		"\r\n",
		"Nov 21 21:44:00 node-1 qemu-system-x86_64[77]: [    3.591339] Kernel panic - not syncing: x",
		"2025-11-21T21:44:00.123456+01:00 node-1 conserver[77]: Kernel panic - not syncing: x",
		"[    3.591339] node-1 systemd[1]: Kernel panic - not syncing: x",
	} {
		if r, ok := ParseLogLine(line); ok {
			t.Errorf("%q was read as %q", line, r.Text)
		}
	}
}
