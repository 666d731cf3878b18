package listener

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/detect"
)

// hostsReplay is what Replay makes of a log: "host: title" for each incident.
func hostsReplay(t *testing.T, log string) []string {
	t.Helper()
	var out bytes.Buffer
	if _, err := Replay(strings.NewReader(log), &out, &detect.Config{}, Auto); err != nil {
		t.Fatal(err)
	}
	var got []string
	for dec := json.NewDecoder(&out); dec.More(); {
		var r Replayed
		if err := dec.Decode(&r); err != nil {
			t.Fatal(err)
		}
		got = append(got, r.Src+": "+r.Title)
	}
	return got
}

// Two machines that die at the same time, in the file of a central daemon, are two deaths, each with its own name.
func TestReplayKeepsHostsApart(t *testing.T) {
	for _, tt := range []struct{ name, line, host string }{
		{"rsyslog's file of netconsole", "Nov 29 13:49:23 10.0.1.%[1]d [%[2]s] %[3]s", "10.0.1."},
		{"a collector's address in front", "10.0.1.%[1]d:6665 [%[2]s] %[3]s", "10.0.1."},
		{"rsyslog's file of netconsole's extended format", "Nov 29 13:49:23 10.0.1.%[1]d 4,1,40145000000,-;%[3]s", "10.0.1."},
		{"a syslog", "Nov 29 13:49:23 node-%[1]d kernel: [%[2]s] %[3]s", "node-"},
		{"journalctl -o short-monotonic", "[%[2]s] node-%[1]d kernel: %[3]s", "node-"},
		{"names of facility and level", "Nov 29 13:49:23 node-%[1]d kern.warn kernel: [%[2]s] %[3]s", "node-"},
		{"talosctl dmesg", "10.0.1.%[1]d: kern: warning: [2024-11-29T13:49:23.1Z]: %[3]s", "10.0.1."},
		{"RFC 5424", "<4>1 2024-11-29T13:49:23Z node-%[1]d kernel - - - [%[2]s] %[3]s", "node-"},
		{"logstash", `{"host":{"ip":"10.0.1.%[1]d"},"message":"[%[2]s] %[3]s"}`, "10.0.1."},
		{"CloudWatch", `{"logStreamName":"i-0abc%[1]d","message":"[%[2]s] %[3]s"}`, "i-0abc"},
		{"journalctl -o json", `{"_HOSTNAME":"node-%[1]d","_TRANSPORT":"kernel","MESSAGE":"%[3]s"}`, "node-"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var log strings.Builder
			for _, text := range oops() {
				fmt.Fprintf(&log, tt.line+"\n", 5, "40145.614353", text)
				fmt.Fprintf(&log, tt.line+"\n", 6, "   12.000000", strings.ReplaceAll(text, "is_uprobe_at_func_entry", "tcp_ack"))
			}
			want := []string{tt.host + "5: general protection fault in is_uprobe_at_func_entry", tt.host + "6: general protection fault in tcp_ack"}
			if diff := cmp.Diff(want, hostsReplay(t, log.String())); diff != "" {
				t.Errorf("incidents (-want +got):\n%s", diff)
			}
		})
	}
}

// What other machines say, when, and by which clocks is beside the point.
func TestReplayOfADeathAmongOtherMachines(t *testing.T) {
	want := []string{"node-0: general protection fault in is_uprobe_at_func_entry"}
	t.Run("that were silent before", func(t *testing.T) {
		var log strings.Builder
		for i := range oops() {
			fmt.Fprintf(&log, "Nov 29 13:40:00 node-%d kernel: eth0: up\n", i)
		}
		for i, text := range oops() {
			fmt.Fprintf(&log, "Nov 29 13:49:23 node-0 kernel: %s\nNov 29 13:49:23 node-%d kernel: eth0: down\n", text, i)
		}
		if diff := cmp.Diff(want, hostsReplay(t, log.String())); diff != "" {
			t.Errorf("incidents (-want +got):\n%s", diff)
		}
	})
	t.Run("whose clocks are behind", func(t *testing.T) {
		var log strings.Builder
		for i, text := range oops() {
			for node := range 4 {
				fmt.Fprintf(&log, "Nov 29 13:49:%02d node-%d kernel: %s\n", 30+i-3*node, node, text)
				text = "eth0: up"
			}
		}
		if diff := cmp.Diff(want, hostsReplay(t, log.String())); diff != "" {
			t.Errorf("incidents (-want +got):\n%s", diff)
		}
	})
}

// Stores export the newest line first.
func TestReplayOfLogsThatAreBackwards(t *testing.T) {
	backwards := func(log string) string {
		lines := strings.Split(strings.TrimSuffix(log, "\n"), "\n")
		slices.Reverse(lines)
		return strings.Join(lines, "\n") + "\n"
	}
	for _, tt := range []struct{ name, log string }{
		{"logcli", backwards(in(`2024-11-29T13:49:23Z {job="kern"} %[1]s %[2]s`))},
		{"Splunk's CSV", "_time,_raw\n" + backwards(in(`2024-11-29T13:49:23.000+0000,"Nov 29 13:49:23 node-7 kernel: %[1]s %[2]s"`))},
		{"dates alone", "@timestamp,program,message\n" + backwards(in(`2024-11-29T13:49:23.00%[3]dZ,kernel,"%[2]s"`))},
		{"milliseconds alone", "timestamp,program,message\n" + backwards(in(`173288816300%[3]d,kernel,"%[2]s"`))},
		{"journalctl -r", backwards(in("Nov 29 13:49:23.00000%[3]d node-7 kernel: %[2]s"))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, _ := logReplay(t, tt.log)
			if diff := cmp.Diff([]string{"dying KernelPanic: general protection fault in is_uprobe_at_func_entry"}, got); diff != "" {
				t.Errorf("incidents (-want +got):\n%s", diff)
			}
		})
	}
}

// The time between two deaths is that of the log's own clock, whichever it has.
func TestReplayKeepsDeathsApart(t *testing.T) {
	const ext4 = "EXT4-fs error (device vda1): ext4_find_entry:1455: inode #2: comm ls: reading directory lblock 0"
	for _, tt := range []struct{ name, log, want string }{
		{"dates of a syslog", "Nov 29 13:49:23 a kernel: Kernel panic - not syncing: x\nNov 30 01:00:00 a kernel: Kernel panic - not syncing: y\n", "a: x, a: y"},
		{"ISO dates", "2024-11-29T13:49:23.1+00:00 a kernel: Kernel panic - not syncing: x\n2024-11-30T01:00:00.1+00:00 a kernel: Kernel panic - not syncing: y\n", "a: x, a: y"},
		{"a new year", "Dec 31 23:49:23 a kernel: Kernel panic - not syncing: x\nJan  1 01:00:00 a kernel: eth0: up\nJan  1 02:00:00 a kernel: Kernel panic - not syncing: y\n", "a: x, a: y"},
		{"dmesg -T", "[Fri Nov 29 13:49:23 2024] Kernel panic - not syncing: x\n[Sat Nov 30 01:00:00 2024] Kernel panic - not syncing: y\n", ": x, : y"},
		{"journalctl -o short-unix", "1732888163.123456 a kernel: Kernel panic - not syncing: x\n1732898163.123456 a kernel: Kernel panic - not syncing: y\n", "a: x, a: y"},
		{"journalctl -o json", `{"__REALTIME_TIMESTAMP":"1732888163123456","_TRANSPORT":"kernel","MESSAGE":"Kernel panic - not syncing: x"}` + "\n" +
			`{"__REALTIME_TIMESTAMP":"1732898163123456","_TRANSPORT":"kernel","MESSAGE":"Kernel panic - not syncing: y"}` + "\n", ": x, : y"},
		{"boots in journalctl -o json", `{"_BOOT_ID":"1","_TRANSPORT":"kernel","MESSAGE":"Kernel panic - not syncing: x"}` + "\n" +
			`{"_BOOT_ID":"2","_TRANSPORT":"kernel","MESSAGE":"Kernel panic - not syncing: y"}` + "\n", ": x, : y"},
		{"consoles", `{"InstanceId":"i-1","Output":"[    1.000000] Kernel panic - not syncing: x\n"}` + `{"InstanceId":"i-2","Output":"[    1.000000] Kernel panic - not syncing: y\n"}` + "\n", "i-1: x, i-2: y"},
		{"a death soon after a finding", "Nov 29 13:40:00 a kernel: " + ext4 + "\nNov 29 13:49:23 a kernel: Kernel panic - not syncing: x\n", "a: EXT4-fs error in ext4_find_entry, a: x"},
		{"an oops and its panic", "Nov 29 13:49:59 a kernel: BUG: kernel NULL pointer dereference, address: 0000000000000000\nNov 29 13:49:59 a kernel: Oops: 0002 [#1] SMP\n" +
			"Nov 29 13:50:09 a kernel: RIP: 0010:tcp_ack+0x1/0x2\nNov 29 13:50:19 a kernel: Kernel panic - not syncing: Fatal exception\n", "a: kernel NULL pointer dereference in tcp_ack"},
		{"the newest first", "Nov 30 01:00:00 a kernel: Kernel panic - not syncing: y\nNov 29 13:49:23 a kernel: Kernel panic - not syncing: x\n", "a: y, a: x"},
		{"the same second", "Nov 29 13:49:23 a kernel: Kernel panic - not syncing: x\nNov 29 13:49:23 a kernel: Kernel panic - not syncing: y\n", "a: x"},
		{"uptimes of a second boot", "[40145.000000] Kernel panic - not syncing: x\n[    0.000000] Linux version 6.6.58 (a) #1 SMP\n[  200.000000] " + ext4 + "\n[ 5000.000000] Kernel panic - not syncing: y\n",
			": x, : EXT4-fs error in ext4_find_entry, : y"},
		{"a date that nobody can read", "Sexagesima 29 13:49:23 a kernel: Kernel panic - not syncing: x\n", "a: x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := strings.Join(hostsReplay(t, tt.log), ", "); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}
