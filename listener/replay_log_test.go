package listener

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/detect"
)

// logReplay is what Replay makes of a log: "verdict cause: title" for each incident.
func logReplay(t *testing.T, log string) ([]string, Reading) {
	t.Helper()
	var out bytes.Buffer
	reading, err := Replay(strings.NewReader(log), &out, &detect.Config{}, Auto)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for dec := json.NewDecoder(&out); dec.More(); {
		var r Replayed
		if err := dec.Decode(&r); err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %s: %s", r.Verdict, r.Code, r.Title))
	}
	return got, reading
}

// TestReplayOfPublicLogs judges logs cut down from public reports (testdata/logs/EXPECTED.tsv): name, source, verdict, cause,
// and what the title must contain, where `|` stands between alternatives and `,` between words that must all be there.
func TestReplayOfPublicLogs(t *testing.T) {
	table := string(read(t, "testdata/logs/EXPECTED.tsv"))
	tested := 0
	for line := range strings.Lines(table) {
		col := strings.Split(strings.TrimSpace(line), "\t")
		if col[0] == "name" {
			continue
		}
		tested++
		t.Run(col[0], func(t *testing.T) {
			got, _ := logReplay(t, string(read(t, "testdata/logs/"+col[0]+".log")))
			if len(got) != 1 {
				t.Fatalf("%d incidents, want one: %q", len(got), got)
			}
			if want := col[2] + " " + col[3] + ": "; !strings.HasPrefix(got[0], want) || !named(got[0], col[4]) {
				t.Errorf("%s, want %s%s", got[0], want, col[4])
			}
		})
	}
	files, err := filepath.Glob("testdata/logs/*.log")
	if err != nil || len(files) != tested {
		t.Errorf("%d logs, and %d of them in the table: %v", len(files), tested, err)
	}
}

// named reports whether all words of one alternative are in a title.
func named(title, want string) bool {
	for alternative := range strings.SplitSeq(want, "|") {
		all := true
		for word := range strings.SplitSeq(alternative, ",") {
			all = all && strings.Contains(strings.ToLower(title), strings.ToLower(strings.TrimSpace(word)))
		}
		if all {
			return true
		}
	}
	return false
}

// oops is what a kernel printed, line by line, from 40145.614353 s on.
func oops() []string {
	return []string{
		"general protection fault, probably for non-canonical address 0x9e759c37ee555c76: 0000 [#1] SMP PTI",
		"CPU: 18 PID: 234918 Comm: conn48291 Tainted: G           O       6.6.58-talos #1",
		"RIP: 0010:is_uprobe_at_func_entry+0x28/0x80",
		"Call Trace:",
		" <IRQ>",
		" perf_callchain_user+0x20a/0x360",
		" get_perf_callchain+0x147/0x1d0",
		"---[ end trace 0000000000000000 ]---",
		"Kernel panic - not syncing: Fatal exception in interrupt",
	}
}

// in puts every line of a log into an envelope: %[1]s is its time stamp, %[2]s its text, %[3]d its number, %[4]s its text as JSON.
func in(envelope string) string {
	var log strings.Builder
	for i, text := range oops() {
		quoted, _ := json.Marshal(text)
		fmt.Fprintf(&log, envelope, fmt.Sprintf("[40145.61435%d]", i), text, i+1, quoted)
		log.WriteByte('\n')
	}
	return log.String()
}

// list is a log as a JSON list of its lines.
func list(log string) string {
	text, _ := json.Marshal(strings.Split(strings.TrimSpace(log), "\n"))
	return string(text) + "\n"
}

func TestReplayFindsTheKernelInAnyLog(t *testing.T) {
	tests := []struct{ name, log string }{
		{"dmesg", in("%[1]s %[2]s")},
		{"dmesg without time", in("%[2]s")},
		{"dmesg -r", in("<4>%[1]s %[2]s")},
		{"dmesg -x", in("kern  :warn  : %[1]s %[2]s")},
		{"dmesg -T", in("[Fri Nov 29 13:49:23 2024] %[2]s")},
		{"dmesg -T in German", in("[Fr Nov 29 13:49:23 2024] %[2]s")},
		{"dmesg -e", in("[Nov29 13:49] %[2]s")},
		{"dmesg -d", in("[40145.614353 <    0.000012>] %[2]s")},
		{"dmesg --time-format=iso", in("2024-11-29T13:49:23,123456+00:00 %[2]s")},
		{"dmesg --color=always", in("\x1b[32m%[1]s \x1b[0m\x1b[31m%[2]s\x1b[0m")},
		{"CONFIG_PRINTK_CALLER", in("%[1]s[ T2349] %[2]s")},
		{"CONFIG_PRINTK_CALLER, apart", in("%[1]s [   C18] %[2]s")},
		{"the CPU in the stamp", in("[40145.614353@18] %[2]s")},
		{"the CPU behind the stamp", in("%[1]s c18  2349 %[2]s")},
		{"/dev/kmsg", in("4,%[3]d,40145614353,-;%[2]s")},
		{"/dev/kmsg with the caller", in("4,%[3]d,40145614353,-,caller=T2349;%[2]s")},
		{"netconsole's extended format", in("6.6.58-talos,4,%[3]d,40145614353,-;%[2]s")},
		{"netconsd's logger", in("6.6.58-talos 00000%[3]d 00040145614353 0 4 %[2]s")},
		{"pstore", "Panic#1 Part1\n" + in("<4>%[1]s %[2]s")},
		{"a serial console", strings.ReplaceAll(in("%[1]s %[2]s"), "\n", "\r\n")},
		{"a serial console that returns first", in("\r%[1]s %[2]s")},
		{"behind a prompt", "ip-10-0-1-5 login: " + in("%[1]s %[2]s")},
		{"conserver", in("[2024-11-29 13:49:23] %[1]s %[2]s")},
		{"indented", in("\t    %[1]s %[2]s")},
		{"cat -n", in("%6[3]d\t%[1]s %[2]s")},
		{"grep -n", in("%[3]d:%[1]s %[2]s")},
		{"blanks behind", in("%[1]s %[2]s      ")},
		{"journalctl", in("Nov 29 13:49:23 node-7 kernel: %[2]s")},
		{"journalctl --no-hostname", in("Nov 29 13:49:23 kernel: %[2]s")},
		{"journalctl in French", in("nov. 29 13:49:23 node-7 kernel: %[2]s")},
		{"journalctl in Russian", in("ноя 29 13:49:23 node-7 kernel: %[2]s")},
		{"journalctl in Japanese", in("11月 29 13:49:23 node-7 kernel: %[2]s")},
		{"the day first", in("29. Nov 13:49:23 node-7 kernel: %[2]s")},
		{"journalctl -o short-full", in("Fri 2024-11-29 13:49:23 UTC node-7 kernel: %[2]s")},
		{"journalctl -o short-full in Papua", in("Fri 2024-11-29 13:49:23 WIT node-7 kernel: %[2]s")},
		{"journalctl -o short-full in Singapore, of old", in("Fri 2014-11-28 13:49:23 SGT node-7 kernel: %[2]s")},
		{"journalctl -o short-iso", in("2024-11-29T13:49:23+0000 node-7 kernel: %[2]s")},
		{"journalctl -o short-iso-precise", in("2024-11-29T13:49:23.123456+00:00 node-7 kernel: %[2]s")},
		{"journalctl -o short-precise", in("Nov 29 13:49:23.123456 node-7 kernel: %[2]s")},
		{"journalctl -o short-monotonic", in("%[1]s node-7 kernel: %[2]s")},
		{"journalctl -o short-delta", in("[40145.614353 <    0.000012 >] node-7 kernel: %[2]s")},
		{"journalctl -o short-unix", in("1732888163.123456 node-7 kernel: %[2]s")},
		{"journalctl -o with-unit", in("Fri 2024-11-29 13:49:23 UTC node-7 kernel: %[2]s")},
		{"journalctl -o cat", in("%[2]s")},
		{"journalctl -o json", in(`{"_TRANSPORT":"kernel","PRIORITY":"4","SYSLOG_IDENTIFIER":"kernel","MESSAGE":%[4]s}`)},
		{"journalctl -o json with the time", in(`{"_TRANSPORT":"kernel","_SOURCE_MONOTONIC_TIMESTAMP":"40145614353","MESSAGE":%[4]s}`)},
		{"journalctl -o json-sse", in(`data: {"_TRANSPORT":"kernel","MESSAGE":%[4]s}` + "\n")},
		{"journalctl -o json-seq", in("\x1e" + `{"_TRANSPORT":"kernel","MESSAGE":%[4]s}`)},
		{"journalctl -o json-pretty", in("{\n\t\"_TRANSPORT\" : \"kernel\",\n\t\"MESSAGE\" : %[4]s\n}")},
		{"journalctl -o export", in("__CURSOR=s=1;i=%[3]d\n_TRANSPORT=kernel\nPRIORITY=4\nMESSAGE=%[2]s\n")},
		{"journalctl -o export with binary text", in("__CURSOR=s=1;i=%[3]d\n_TRANSPORT=kernel\nMESSAGE\n\x10\x00\x00\x00\x00\x00\x00\x00%[2]s\n")},
		{"journalctl -o verbose", in("Fri 2024-11-29 13:49:23.123456 UTC [s=8cb8;i=1%[3]d;b=7f3c;m=1;t=2;x=3]\n    _TRANSPORT=kernel\n    PRIORITY=4\n    MESSAGE=%[2]s")},
		{"rsyslog", in("Nov 29 13:49:23 node-7 kernel: %[1]s %[2]s")},
		{"rsyslog with ISO time", in("2024-11-29T13:49:23.123456+00:00 node-7 kernel: %[1]s %[2]s")},
		{"rsyslog's file of netconsole", in("Nov 29 13:49:23 10.0.1.5 %[1]s %[2]s")},
		{"rsyslog's file of netconsole with ISO time", in("2024-11-29T13:49:23.123456+00:00 node-7 %[1]s %[2]s")},
		{"RFC 3164 on the wire", in("<4>Nov 29 13:49:23 node-7 kernel: %[1]s %[2]s")},
		{"RFC 5424", in("<4>1 2024-11-29T13:49:23.123456+00:00 node-7 kernel - - - %[1]s %[2]s")},
		{"RFC 5424 with data", in(`<4>1 2024-11-29T13:49:23.123456+00:00 node-7 kernel - - [meta seq="1"] %[2]s`)},
		{"names of facility and level", in("2016-07-31 16:26:53 +0000 UTC kern.crit kernel: %[2]s")},
		{"names of facility and level behind the host", in("Nov 29 13:49:23 node-7 kern.warn kernel: %[1]s %[2]s")},
		{"the program alone", in("kernel: %[2]s")},
		{"talosctl dmesg", in("10.0.1.5: kern: warning: [2024-11-29T13:49:23.123456789Z]: %[2]s")},
		{"a collector's address in front", in("10.0.1.5:6665 %[1]s %[2]s")},
		{"a collector's name in front", in("node-7 %[1]s %[2]s")},
		{"journalctl in Korean", in("11월 29 13:49:23 node-7 kernel: %[2]s")},
		{"journalctl in Thai", in("พ.ย. 29 13:49:23 node-7 kernel: %[2]s")},
		{"journalctl in Brazil's time", in("sex 2024-11-29 13:49:23 -03 node-7 kernel: %[2]s")},
		{"two blanks behind the program", in("Nov 29 13:49:23 node-7 kernel:  %[1]s %[2]s")},
		{"none behind the program", in("Nov 29 13:49:23 node-7 kernel:%[1]s %[2]s")},
		{"two blanks behind the collector's host", in("Nov 29 13:49:23 10.0.1.5  %[1]s %[2]s")},
		{"a tab behind the collector's host", in("2024-11-29 13:49:23 10.0.1.5\t%[1]s %[2]s")},
		{"a collector's address with its port", in("2024-11-29T13:49:23+00:00 [fd00:10::5]:6665 %[1]s %[2]s")},
		{"journalctl in Catalan", in("de nov. 29 13:49:23 node-7 kernel: %[2]s")},
		{"journalctl in Catalan, in August", in("d’ag. 29 13:49:23 node-7 kernel: %[2]s")},
		{"journalctl in Finnish", in("marras 29 13:49:23 node-7 kernel: %[2]s")},
		{"journalctl in Hindi", in("नवंबर 29 13:49:23 node-7 kernel: %[2]s")},
		{"dmesg -T in Catalan", in("[dv. de nov. 29 13:49:23 2024] %[2]s")},
		{"dmesg -T in Vietnamese", in("[T6 Thg 11 29 13:49:23 2024] %[2]s")},
		{"dmesg -e in Japanese", in("[11月29 13:49] %[2]s")},
		{"dmesg -e in Catalan", in("[de nov.29 13:49] %[2]s")},
		{"names of facility and level with a colon", in("2024-11-29T13:49:23Z node-7 kern:alert kernel: %[1]s %[2]s")},
		{"a number and a parenthesis", in("%[3]d) %[1]s %[2]s")},
		{"colour whose escape character rsyslog spelled out", in("Nov 29 13:49:23 node-7 kernel: #033[32m%[1]s #033[0m%[2]s")},
		{"colour in cat -v", in("^[[32m%[1]s ^[[0m^[[31m%[2]s^[[0m")},
		{"colour that lost its escape character", in("[32m%[1]s [0m[1;31m%[2]s[0m")},
		{"colour with colons", in("\x1b[38:5:1m%[1]s %[2]s\x1b[m")},
		{"another vendor's CPU and task", in("<4>%[1]s -(3)[123:kworker/u:1]%[2]s")},
		{"behind a commit that was named", "bisected to\ncommit 0123456789abcdef0123456789abcdef01234567\nAuthor: A <a@b>\n\n    mm: x\n\n" + in("Nov 29 13:49:23 node-7 kernel: %[2]s")},
		{"a caller in JSON", in(`{"msg":"%[2]s","pri":4,"time":40145.614353,"caller":"T2349"}`)},
		{"a broadcast to terminals", in("Message from syslogd@node-7 at Nov 29 13:49:23 ...\n kernel:%[1]s %[2]s\n")},
		{"busybox logread", in("Fri Nov 29 13:49:23 2024 kern.warn kernel: %[1]s %[2]s")},
		{"aws logs tail", in("2024-11-29T13:49:23.123000+00:00 node/i-0abc/kern %[1]s %[2]s")},
		{"logcli", in(`2024-11-29T13:49:23Z {host="node-7", job="kern"} %[1]s %[2]s`)},
		{"grep -H", in("/var/log/kern.log:Nov 29 13:49:23 node-7 kernel: %[1]s %[2]s")},
		{"grep -Hn of a console", in("console.log:%[3]d:%[1]s %[2]s")},
		{"zgrep with context", in("/var/log/kern.log.1.gz-%[1]s %[2]s")},
		{"pdsh", in("node-7: %[1]s %[2]s")},
		{"rsyslog's JSON", in(`{"programname":"kernel","facility":"kern","message":%[4]s}`)},
		{"Cloud Logging", in(`{"insertId":"1","jsonPayload":{"SYSLOG_IDENTIFIER":"kernel","_TRANSPORT":"kernel","MESSAGE":%[4]s}}`)},
		{"aws ec2 get-console-output", fmt.Sprintf("{\n    \"InstanceId\": \"i-0abc\",\n    \"Output\": %q,\n    \"Timestamp\": \"2024-11-29T13:49:23+00:00\"\n}\n", strings.ReplaceAll(in("%[1]s %[2]s"), "\n", "\r\n"))},
		{"aws ec2 get-console-output --output text", "i-0abc\t" + strings.ReplaceAll(in("%[1]s %[2]s"), "\n", "\r\n") + "\t2024-11-29T13:49:23+00:00\n"},
		{"American dates", in("11/29/2024, 1:49:23 PM %[1]s %[2]s")},
		{"CRI", in("2024-11-29T13:49:23.123456789Z stdout F %[1]s %[2]s")},
		{"CRI around a syslog", in("2024-11-29T13:49:23.123456789Z stderr F Nov 29 13:49:23 node-7 kernel: %[2]s")},
		{"kubectl logs --timestamps", in("2024-11-29T13:49:23.123456789Z %[1]s %[2]s")},
		{"kubectl logs --prefix", in("[pod/dmesg-x7k9/dmesg] %[1]s %[2]s")},
		{"docker compose logs", in("dmesg-1  | %[1]s %[2]s")},
		{"docker's json-file", strings.ReplaceAll(in(`{"log":"%[1]s %[2]s\n","stream":"stdout","time":"2024-11-29T13:49:23.123456789Z"}`), "\t", " ")},
		{"journalctl -o short-delta, its first line", in("[40145.614353                ] node-7 kernel: %[2]s")},
		{"journalctl's bytes", strings.ReplaceAll(in(`{"_TRANSPORT":"kernel","MESSAGE":%[4]s}`), `" <IRQ>"`, `[32,60,73,82,81,62]`)},
		{"a list of texts", list(in("%[1]s %[2]s"))},
		{"what Ansible registers", `{"cmd":["dmesg"],"rc":0,"stdout_lines":` + list(in("%[1]s %[2]s")) + "}"},
		{"a NodeDeath", `{"apiVersion":"lastgasp.dev/v1alpha1","kind":"NodeDeath","metadata":{"name":"a"},"spec":{"cause":"KernelPanic","trace":` + list(in("%[1]s %[2]s")) + "}}"},
		{"a NodeDeath in YAML", "kind: NodeDeath\nspec:\n  cause: KernelPanic\n  trace:\n" + in("  - '%[1]s %[2]s'")},
		{"az vm boot-diagnostics get-boot-log", fmt.Sprintf("%q\n", strings.ReplaceAll(in("%[1]s %[2]s"), "\n", "\r\n"))},
		{"gcloud logging read", in("---\ninsertId: a%[3]d\nresource:\n  labels:\n    zone: a\n  type: gce_instance\ntextPayload: '%[1]s %[2]s'\ntimestamp: '2024-11-29T13:49:23Z'")},
		{"Splunk's CSV", "\"_time\",\"_raw\",host\n" + in(`"2024-11-29T13:49:23.000+0000","Nov 29 13:49:23 node-7 kernel: %[1]s %[2]s",node-7`)},
		{"Splunk's CSV in another order", "_raw,_time\n" + in(`"Nov 29 13:49:23 node-7 kernel: %[1]s %[2]s",2024-11-29`)},
		{"CloudWatch's CSV", "@timestamp,@message,@logStream\n" + in(`"2024-11-29 13:49:23.000","%[1]s %[2]s","node-7"`)},
		{"a spreadsheet that leaves quotes as they are", "_time,_raw\n2024-11-29T13:49:22.000+0000,Nov 29 13:49:22 node-7 kernel: an odd \" here\n" + in("2024-11-29T13:49:23.000+0000,Nov 29 13:49:23 node-7 kernel: %[1]s %[2]s")},
		{"a spreadsheet that ends in a row", "_time,_raw\n" + strings.TrimSuffix(in(`"2024-11-29T13:49:23.000+0000","%[1]s %[2]s"`), "\"\n") + "\n"},
		{"Datadog's CSV", "Date,Host,Service,Content\n" + in(`2024-11-29T13:49:23.123Z,node-7,kernel,"%[1]s %[2]s"`)},
		{"Splunk's event collector", in(`{"time":1732888163,"host":"node-7","event":"%[1]s %[2]s","sourcetype":"kernel"}`)},
		{"syslog-ng's JSON", in(`{"PROGRAM":"kernel","PRIORITY":"warning","MESSAGE":%[4]s,"HOST":"node-7","FACILITY":"kern"}`)},
		{"the level in front of the program (ChromeOS, COS)", in("2024-11-29T13:49:23.123456Z node-7 ERR kernel: %[1]s %[2]s")},
		{"Android's logcat", in("11-29 13:49:23.123     0     0 W         : %[2]s")},
		{"Android's logcat with the user", in("11-29 13:49:23.123  root     0     0 E %[1]s %[2]s")},
		{"a vendor's CPU and task", in("<4>%[1]s  [3:   kworker/u:1:  123] %[2]s")},
		{"a serial logger's date right in front", in("[Fri Nov 29 13:49:23 2024]%[1]s %[2]s")},
		{"a build server's marks", in("\x1b_bk;t=1732888163123\a%[1]s %[2]s")},
		{"a level's letter in front of the program", strings.Replace(in("2024-11-29 13:49:23 W kernel: %[2]s"), " W ", " E ", 3)},
		{"metalog", in("Nov 29 13:49:23 [kernel] %[2]s")},
		{"a time of day in parentheses", in("(13:49:2%[3]d) %[1]s %[2]s")},
		{"a date in angle brackets", in("<11-29 13:49:2%[3]d> %[1]s %[2]s")},
		{"the time since the capture began", in("[  12.34%[3]d] %[1]s %[2]s")},
		{"a serial logger's date with milliseconds", in("[Fri Nov 29 13:49:23.12%[3]d 2024] %[1]s %[2]s")},
		{"American dates with a zone", in("11/29/2024 13:49:23.123 +0000 node-7 kernel: %[1]s %[2]s")},
		{"a date without separators", in("20241129T13492%[3]dZ %[1]s %[2]s")},
		{"a web page's line numbers", in("L%[3]d: %[1]s %[2]s")},
		{"grep -n of the program alone", in("%[3]d:kernel: %[2]s")},
		{"CONFIG_PRINTK_CALLER without time", in("[ T2349] %[2]s")},
		{"CONFIG_PRINTK_CALLER without time in a syslog", in("Nov 29 13:49:23 node-7 kernel: [T234918] %[2]s")},
		{"crash's log -m", in("%[1]s <4>%[2]s")},
		{"carriage returns alone", strings.ReplaceAll(in("%[1]s %[2]s"), "\n", "\r")},
		{"carriage returns in cat -v", in("%[1]s %[2]s^M")},
		{"firmware's terminal", in("\x1b[2J\x1b[01;01H\x1b[=3h\x1b[1 q\x1bP+q\x1b\\\x1bc%[1]s %[2]s")},
		{"a spreadsheet with semicolons", "time;program;message\n" + in("2024-11-29T13:49:23Z;kernel;\"%[2]s\"")},
		{"a spreadsheet with tabs", "time\tprogram\tmessage\n" + in("2024-11-29T13:49:23Z\tkernel\t%[2]s")},
		{"Azure's CSV", "TimeGenerated [UTC],Facility,SyslogMessage,ProcessName\n" + in(`"11/29/2024, 1:49:23.123 PM",kern,"%[2]s",kernel`)},
		{"Systems Manager", fmt.Sprintf("{\n  \"InstanceId\": \"i-0abc\",\n  \"StandardOutputContent\": %q\n}\n", in("%[1]s %[2]s"))},
		{"a log in a ticket", fmt.Sprintf(`{"id":12,"attachments":{"console_log":%q}}`, in("%[1]s %[2]s"))},
		{"a console's returns in a container's log", in("2024-11-29T13:49:23.123456789Z stdout F \r%[1]s %[2]s")},
		{"indented in a container's log", in("2024-11-29T13:49:23.123456789Z stdout F       %[1]s %[2]s")},
		{"/dev/kmsg, indented", in("    4,%[3]d,40145614353,-;%[2]s")},
		{"an unknown envelope, and pauses", "| [40100.000001] a: x\n| [40100.000002] b: x\n" + in("| %[1]s %[2]s")},
		{"glued behind an apostrophe", "can't open x" + in("%[1]s %[2]s")},
		{"glued behind JSON that is cut", `{"level":"fatal","msg":"shut` + in("%[1]s %[2]s")},
		{"glued behind an assignment", "init: code=1 (pid 1" + in("%[1]s %[2]s")},
		{"glued behind a program's output", strings.Replace(in("%[1]s %[2]s"), "[", "panic: runtime e[", 1)},
		{"glued behind a program's output in the middle", "[40145.600000] eth0: link up\n[  OK  ] Reached target " + in("%[1]s %[2]s")},
	}
	const want = "dying KernelPanic: general protection fault in is_uprobe_at_func_entry"
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, reading := logReplay(t, tt.log)
			if diff := cmp.Diff([]string{want}, got); diff != "" {
				t.Errorf("incidents (-want +got):\n%s%s", diff, tt.log[:min(len(tt.log), 300)])
			}
			if bare := strings.HasPrefix(tt.log, "general"); reading.Kernel == 0 && !bare {
				t.Error("no line was recognised as a kernel's")
			}
		})
	}
}

// Text that talks about a panic is not one, whatever it stands in.
func TestReplayLeavesQuotationsAlone(t *testing.T) {
	const panicked = "Kernel panic - not syncing: sysrq triggered crash"
	for _, log := range []string{
		"Nov 29 13:49:23 node-7 kubelet[903]: " + panicked,
		"Nov 29 13:49:23 node-7 logger: " + panicked,
		"Nov 29 13:49:23 logger: " + panicked,
		"nov. 29 13:49:23 node-7 conserver[7]: [   12.345678] " + panicked,
		"2024-11-29T13:49:23.123456+00:00 node-7 conserver[77]: [   12.345678] " + panicked,
		"2024-11-29T13:49:23.123456789Z stdout F level=error msg=\"" + panicked + "\"",
		"2024-11-29T13:49:23.123456789Z stdout F " + panicked,
		"2024-11-29 13:49:23 ERROR " + panicked,
		"[2024/11/29 13:49:23] [ info] " + panicked,
		"[2024-11-29 13:49:23] " + panicked,
		"time=2024-11-29T13:49:23Z level=error msg=\"" + panicked + "\"",
		"<14>1 2024-11-29T13:49:23+00:00 node-7 kernel - - - " + panicked,
		"<4>1 2024-11-29T13:49:23+00:00 node-7 conserver - - - " + panicked,
		"<14>Nov 29 13:49:23 node-7 kernel: " + panicked,
		"<12>[   12.345678] " + panicked,
		"user  :warn  : [   12.345678] " + panicked,
		"Nov 29 13:49:23 node-7 user.warn kernel: " + panicked,
		"10.0.1.5: user: warning: [2024-11-29T13:49:23.1Z]: " + panicked,
		"12,1000,40145614353,-;" + panicked,
		"4,1000,40145614353,-;[   12.345678] " + panicked,
		"4,1000,40145614353,-;vm1: " + panicked,
		"000001 00040145614353 1 4 " + panicked,
		`{"_TRANSPORT":"stdout","SYSLOG_IDENTIFIER":"kernel","MESSAGE":"` + panicked + `"}`,
		`{"_TRANSPORT":"syslog","SYSLOG_IDENTIFIER":"kernel","MESSAGE":"` + panicked + `"}`,
		`{"_TRANSPORT":"kernel","SYSLOG_FACILITY":"3","MESSAGE":"` + panicked + `"}`,
		`{"_TRANSPORT":"kernel","MESSAGE":"[   12.345678] ` + panicked + `"}`,
		`{"_TRANSPORT":"journal","MESSAGE":"` + panicked + `"}`,
		`{"MESSAGE":"` + panicked + `"}`,
		`{"msg":"` + panicked + `"}`,
		`{"programname":"kubelet","message":"[   12.345678] ` + panicked + `"}`,
		`{"facility":"daemon","message":"[   12.345678] ` + panicked + `"}`,
		`{"jsonPayload":{"_TRANSPORT":"stdout","MESSAGE":"` + panicked + `"}}`,
		`["` + panicked + `","[   12.345678] ` + panicked + `","` + panicked + `"]`,
		`"` + panicked + `\n[   12.345678] ` + panicked + `"`,
		`{"trace":["[   12.345678] ` + panicked + `"],"title":"x"}`,
		"kind: Event\nmessage: '" + panicked + "'\n",
		`{"service":"vmm","lines":["[   12.345678] ` + panicked + `","[   12.345679] CPU: 0"]}`,
		`{"logger":"guest","msg":"console","stdout":"[   12.345678] ` + panicked + `\n[   12.345679] CPU: 0\n"}`,
		`{"stream":"stdout","lines":["[   12.345678] ` + panicked + `","[   12.345679] CPU: 0"]}`,
		`{"logger":"kernel","msg":"` + panicked + `"}`,
		"examples:\n- '[   12.345678] " + panicked + "'\n- '[   99.000000] " + panicked + "'\n",
		"id,title,message\n1,boot,\"they see [   12.345678] " + panicked + "\"\n2,x," + panicked + "\n",
		"time,service,message\n2024-11-29T13:49:23Z,vmm,\"[   12.345678] " + panicked + "\"\n",
		`{"level":"error","msg":"[   12.345678] ` + panicked + `","logger":"guest"}`,
		`{"PROGRAM":"vmm","MESSAGE":"[   12.345678] ` + panicked + `"}`,
		`{"time":1,"event":"` + panicked + `"}`,
		"11-29 13:49:23.123  1000  1234 W vmm     : " + panicked,
		"[Fri Nov 29 13:49:23 2024] [   12.345678] " + panicked,
		"time=\"2024-11-29T13:49:23Z\" level=debug vmconsole=\"[   12.345678] " + panicked + "\"\n",
		"> [   12.345678] " + panicked + "\n> [   12.345679] CPU: 1 PID: 1 Comm: init Not tainted 6.1.0 #1\n",
		"11/29/2024, 1:49:23 PM " + panicked,
		"node-7: " + panicked,
		"kern.log:12:" + panicked,
		"kernel of truth: " + panicked,
		"Message from syslogd@node-7 at Nov 29 13:49:23 ...\n conserver:[   12.345678] " + panicked,
		`{"log":"` + panicked + `\n","stream":"stdout"}`,
		`{"log":"{\"log\":\"[   12.345678] ` + panicked + `\"}","stream":"stdout"}`,
		"__CURSOR=s=1\n_TRANSPORT=syslog\nSYSLOG_IDENTIFIER=kernel\nMESSAGE=" + panicked + "\n",
		"Fri 2024-11-29 13:49:23.123456 UTC [s=8cb8;i=11;b=7f3c]\n    _TRANSPORT=stdout\n    MESSAGE=" + panicked,
		"[    3.591339] [   12.345678] " + panicked,
		"[    3.591339] node-7 conserver[77]: " + panicked,
		"[    3.591339] vm1: " + panicked,
		"[    3.591339] eth0: up\n" + panicked,
		"Nov 29 13:49:23 node-7 kernel: eth0: up\n" + panicked,
		"Nov 29 13:49:23 node-7 kernel: eth0: up\n[   12.345678 " + panicked,
		"[    1.000000] eth0: up\nPanic#1 Part1\nPanic#1 Part2\n" + panicked,
		"[   12.000000] eth0: up\nmsg: \"[   12.345678] " + panicked + "\"",
		"[   12.000000] eth0: up\n- '[   12.345678] " + panicked + "'\n- '[   12.345679] CPU: 0'",
		"msg: \"[   12.345678] " + panicked + "\"\n[   12.345679] eth0: up",
		`fatal: [node-2]: FAILED! => {"msg": "[   12.345678] ` + panicked + `"}` + "\n[   12.345679] eth0: up",
		"+ grep panic /var/log\n/var/log/kern.log: [   12.345678] " + panicked,
		"console of vm1: [   12.345678] " + panicked + "\n[   99.000000] eth0: up",
		"Nov 29 13:49:23 conserver: [   12.345678] " + panicked,
		"2024-11-29T13:49:23Z INFO guest: [   12.345678] " + panicked,
		"2024-11-29 13:49:23 CRIT guest: [   12.345678] " + panicked,
		"diff --git a/x.rst b/x.rst\nindex 1..2 100644\n--- a/x.rst\n+++ b/x.rst\n@@ -1,3 +1,4 @@\n x\n+    [   12.345678] " + panicked + "\n+    [   12.345679] CPU: 1",
		"@@ -1 +1 @@ x\n [   12.345678] " + panicked + "\n [   12.345679] CPU: 1\n",
		"commit 0123456789abcdef0123456789abcdef01234567\nAuthor: A <a@b>\nDate:   Fri Nov 29 13:49:23 2024 +0000\n\n    mm: x\n\n    [   12.345678] " + panicked + "\n",
		"x.md-12-[   12.345678] " + panicked + "\nx.md-13-[   12.345679] CPU: 1",
		"drivers/x.c:12:[   12.345678] " + panicked,
		`{"role":"user","content":"[   12.345678] ` + panicked + `"}`,
		`{"choices":[{"message":{"role":"assistant","content":"[   12.345678] ` + panicked + `\n[   12.345679] CPU: 1"}}]}`,
		`{"channel":"ops","user":"alice","text":"[   12.345678] ` + panicked + `"}`,
		`{"title":"crash","body":"[   12.345678] ` + panicked + `"}`,
		`{"kind":"Event","apiVersion":"v1","message":"[   12.345678] ` + panicked + `","reason":"KernelPanic"}`,
		`{"level":"info","ts":1732888163.1,"caller":"vm/console.go:12","msg":"[   12.345678] ` + panicked + `"}`,
		"[   99.000000] eth0: up\nconsole of vm1: [   12.345678] " + panicked,
		"I1129 13:49:23.123456    1234 console.go:10] [   12.345678] " + panicked + "\nI1129 13:49:23.123457    1234 console.go:10] [   12.345679] CPU: 1\n",
		"INFO:guest:[   12.345678] " + panicked + "\nINFO:guest:[   12.345679] CPU: 1\n",
		"[13:49:23.123] [main/INFO] [   12.345678] " + panicked + "\n[13:49:23.123] [main/INFO] [   12.345679] CPU: 1\n",
		"[13:49:23] " + panicked,
		"[13:49:23] <alice> [   12.345678] " + panicked,
		"13:49 <alice> [   12.345678] " + panicked + "\n13:49 <alice> [   12.345679] CPU: 1\n",
		"user.crit kernel: " + panicked,
		"[T12345] " + panicked,
		"// [   12.345678] " + panicked + "\n// [   12.345679] CPU: 1\n",
		"Kernel panic - not syncing: %s\n",
		`{"level":"debug","msg":"[   12.345678] ` + panicked + `","source":"hypervisor"}`,
		`[{"id":1,"user":{"login":"alice"},"body":"[   12.345678] ` + panicked + `"}]`,
		`{"log":"guest says\n[   12.345678] ` + panicked + `\n"}`,
		"time;service;message\n2024-11-29T13:49:23Z;vmm;\"[   12.345678] " + panicked + "\"\n",
		"commit 0123456789abcdef0123456789abcdef01234567 (HEAD -> main)\nAuthor: A <a@b>\n\n    [   12.345678] " + panicked + "\n    [   12.345679] CPU: 1\n",
		"* commit 0123456789abcdef0123456789abcdef01234567\n| Author: A <a@b>\n| \n|     [   12.345678] " + panicked + "\n|     [   12.345679] CPU: 1\n",
		"From 0123456789abcdef0123456789abcdef01234567 Mon Sep 17 00:00:00 2001\nFrom: A <a@b>\nSubject: [PATCH] mm: x\n\nIt says:\n[   12.345678] " + panicked + "\n",
		"$ dmesg | grep \"[   12.345678] " + panicked + "\"\n[   12.345679] eth0: up",
	} {
		if got, _ := logReplay(t, log); len(got) > 0 {
			t.Errorf("%q was read as %q", log, got)
		}
	}
}

// TestReplayReadsEveryDocument: a file may have one object per line, each with the log of another machine.
func TestReplayReadsEveryDocument(t *testing.T) {
	log := in("%[1]s %[2]s")
	death := `{"kind":"NodeDeath","spec":{"trace":` + strings.TrimSpace(list(log)) + "}}\n"
	console := fmt.Sprintf(`{"InstanceId":"i-0123456789abcdef0","Output":%q}`+"\n", log)
	for _, documents := range [][]string{{death, death}, {console, console}, {death, console}, {console, death}} {
		_, got := logReplay(t, strings.Join(documents, ""))
		if diff := cmp.Diff(Reading{Incidents: got.Incidents, Kernel: 2 * len(oops())}, got); diff != "" {
			t.Errorf("%.30q and %.30q (-want +got):\n%s", documents[0], documents[1], diff)
		}
	}
}

func TestPartsOfPstoreAreReadInOrder(t *testing.T) {
	lines := strings.SplitAfter(strings.TrimSuffix(in("<4>%[1]s %[2]s"), "\n"), "\n")
	newest, oldest := strings.Join(lines[5:], ""), strings.Join(lines[:5], "")
	got, _ := logReplay(t, "Panic#2 Part1\n"+newest+"\nPanic#2 Part2\n"+oldest+"Oops#1 Part1\n<4>[40144.000000] eth0: up\n")
	if diff := cmp.Diff([]string{"dying KernelPanic: general protection fault in is_uprobe_at_func_entry"}, got); diff != "" {
		t.Errorf("incidents (-want +got):\n%s", diff)
	}
}

func TestReplaySaysWhatItDidNotUnderstand(t *testing.T) {
	tests := []struct {
		name, log string
		want      Reading
	}{
		{"a log of something else", "\n127.0.0.1 - - [29/Nov/2024:13:49:23 +0000] \"GET / HTTP/1.1\" 200\nx\n", Reading{Line: 2, Text: "127.0.0.1 - - [29/Nov/2024:13:49:23 +0000] \"GET / HTTP/1.1\" 200"}},
		{"nothing at all", "\n\n", Reading{}},
		{"bare text that is a kernel's", "eth0: up\nKernel panic - not syncing: x\n", Reading{Incidents: 1, Line: 1, Text: "eth0: up"}},
		{"a kernel's", "[    3.591339] eth0: up\n", Reading{Kernel: 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, got := logReplay(t, tt.log)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("reading (-want +got):\n%s", diff)
			}
		})
	}
}

// Auto tells captures from logs.
func TestReplayGuessesTheFormat(t *testing.T) {
	capture := read(t, "detect/testdata/captures/6.12-null-userdata.ext.jsonl")
	want := replayOf(t, bytes.NewReader(capture))
	var out bytes.Buffer
	if _, err := Replay(bytes.NewReader(append([]byte("\n"), capture...)), &out, &detect.Config{}, Auto); err != nil || out.String() != want {
		t.Errorf("a capture: %v, %s", err, cmp.Diff(want, out.String()))
	}
}

func TestReplayOfALogWithAnEndlessLine(t *testing.T) {
	got, _ := logReplay(t, "[    1.000000] "+strings.Repeat("x", 3*maxLine)+"\n[    2.000000] Kernel panic - not syncing: x\n")
	if diff := cmp.Diff([]string{"dying KernelPanic: x"}, got); diff != "" {
		t.Errorf("incidents (-want +got):\n%s", diff)
	}
}
