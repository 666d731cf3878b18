package listener

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/detect"
)

// entries is in with what stands between two entries.
func entries(envelope, between string) string {
	const end = "\x00"
	return strings.TrimSuffix(strings.ReplaceAll(strings.ReplaceAll(in(envelope+end), end+"\n", end), end, between), between)
}

// utf16Text is text as Windows stores it.
func utf16Text(order binary.AppendByteOrder, text string) string {
	out := order.AppendUint16(nil, 0xfeff)
	for _, unit := range utf16.Encode([]rune(text)) {
		out = order.AppendUint16(out, unit)
	}
	return string(out)
}

// brokenAt is text as a terminal of that width shows it.
func brokenAt(width int, text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		for len(line) > width+1 {
			b.WriteString(line[:width] + "\n")
			line = line[width:]
		}
		b.WriteString(line)
	}
	return b.String()
}

func gzipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	z.Write([]byte(text)) // into memory
	z.Close()
	return b.String()
}

// inPieces is a container's log whose runtime cut every line in two.
func inPieces(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		fmt.Fprintf(&b, "2024-11-29T13:49:23.123456789Z stdout P %s\n2024-11-29T13:49:23.123456790Z stderr F x\n2024-11-29T13:49:23.123456791Z stdout F %s\n",
			line[:len(line)/2], line[len(line)/2:])
	}
	return b.String()
}

// exported are the shapes in which stores, collectors and consoles hand a log out. Where a shape names the program, the same of
// another program is not the kernel's.
func exported() []struct{ name, log string } {
	dmesg := in("%[1]s %[2]s")
	console := strings.ReplaceAll(dmesg, "\n", "\r\n")
	return []struct{ name, log string }{
		// The journal and dmesg.
		{"journalctl -o short-monotonic --no-hostname", in("%[1]s kernel: %[2]s")},
		{"journalctl -o short-delta --no-hostname", in("[40145.614353 <    0.000012 >] kernel: %[2]s")},
		{"journalctl -o short-unix --no-hostname", in("1732888163.123456 kernel: %[2]s")},
		{"journalctl -o short-full --no-hostname", in("Fri 2024-11-29 13:49:23 UTC kernel: %[2]s")},
		{"journalctl with its own lines", "-- Logs begin at Fri 2024-11-29 13:49:23 UTC. --\n-- Boot 8cb8 --\n" + in("Nov 29 13:49:23 node-7 kernel: %[2]s")},
		{"journalctl -o export without cursor", in("__REALTIME_TIMESTAMP=1732888163123456\n_TRANSPORT=kernel\nSYSLOG_IDENTIFIER=kernel\nMESSAGE=%[2]s\n")},
		{"journalctl -o json with bytes", strings.ReplaceAll(in(`{"_TRANSPORT":"kernel","SYSLOG_FACILITY":"0","_UDEV_DEVLINK":["a","b"],"MESSAGE":%[4]s}`), `"MESSAGE":"Call Trace:"`, `"MESSAGE":[67,97,108,108,32,84,114,97,99,101,58]`)},
		{"dmesg --json", "{\n   \"dmesg\": [\n      {\n" + entries("         \"pri\": 4,\n         \"time\": 40145.614353,\n         \"msg\": %[4]s\n", "      },{\n") + "      }\n   ]\n}\n"},
		{"dmesg --json --decode", "{\n   \"dmesg\": [\n      {\n" + entries("         \"fac\": \"kern\",\n         \"pri\": \"warn\",\n         \"time\": 40145.614353,\n         \"msg\": %[4]s\n", "      },{\n") + "      }\n   ]\n}\n"},
		{"dmesg -x --time-format=iso", in("kern  :warn  : 2024-11-29T13:49:23,123456+00:00 %[2]s")},
		{"dmesg -x -T", in("kern  :warn  : [Fri Nov 29 13:49:23 2024] %[2]s")},
		{"dmesg -x -t", in("kern  :warn  : %[2]s")},
		{"dmesg --time-format=delta", in("[<    0.000012>] %[2]s")},
		{"dmesg --time-format=reltime", in("[  +0.000012] %[2]s")},
		{"dmesg -T -d", in("[Fri Nov 29 13:49:23 2024 <    0.000012>] %[2]s")},
		{"dmesg -T in Chinese", in("[五 11月 29 13:49:23 2024] %[2]s")},
		{"crash's log", "crash> log\n" + dmesg + "crash> quit\n"},
		{"crash's log -T", in("[Fri Nov 29 13:49:23 UTC 2024] %[2]s")},

		// Syslog on the wire and in files.
		{"RFC 5424 with its length", in("123 <4>1 2024-11-29T13:49:23.123456+00:00 node-7 kernel - - - %[1]s %[2]s")},
		{"RFC 3164 with its length", in("123 <4>Nov 29 13:49:23 node-7 kernel: %[1]s %[2]s")},
		{"RFC 3164 with ISO time", in("<4>2024-11-29T13:49:23.123456+00:00 node-7 kernel: %[1]s %[2]s")},
		{"RFC 5424 with a byte order mark", in("<4>1 2024-11-29T13:49:23.123456+00:00 node-7 kernel - - - \ufeff%[1]s %[2]s")},
		{"RFC 5424 without values", in("<4>1 - - kernel - - - %[1]s %[2]s")},
		{"RFC 5424 with a bracket in its data", in(`<4>1 2024-11-29T13:49:23Z node-7 kernel - - [ex@32473 a="x\]y"][b@1 c="2"] %[1]s %[2]s`)},
		{"RFC 5424 without priority", in("1 2024-11-29T13:49:23Z node-7 kernel - - - %[1]s %[2]s")},
		{"RFC 5424 in a container's log", in("2024-11-29T13:49:23.123456789Z stdout F <4>1 2024-11-29T13:49:23Z node-7 kernel - - - %[1]s %[2]s")},
		{"a relay's header in front", in("Nov 29 13:49:24 10.0.1.5 Nov 29 13:49:23 node-7 kernel: %[1]s %[2]s")},
		{"a relay's header with ISO time in front", in("2024-11-29T13:49:24+00:00 10.0.1.5 Nov 29 13:49:23 node-7 kernel: %[2]s")},
		{"syslog-ng's chain of hosts", in("Nov 29 13:49:23 src@node-7/relay kernel: %[1]s %[2]s")},
		{"names first", in("kern.warning: Nov 29 13:49:23 node-7 kernel: %[2]s")},
		{"names in brackets", in("Nov 29 13:49:23 node-7 [kern.warning] kernel: %[1]s %[2]s")},
		{"names in angle brackets", in("Nov 29 13:49:23 <kern.warning> node-7 kernel: %[1]s %[2]s")},
		{"an escaped line feed", in("Nov 29 13:49:23 node-7 kernel: %[1]s %[2]s#012")},
		{"rsyslog's file of netconsole's extended format", in("Nov 29 13:49:23 10.0.1.5 6.6.58-talos,4,%[3]d,40145614353,-;%[2]s")},
		{"the same with ISO time", in("2024-11-29T13:49:23.123456+00:00 node-7 4,%[3]d,40145614353,-,caller=T2349;%[2]s")},
		{"/dev/kmsg in a container's log", in("2024-11-29T13:49:23.123456789Z stdout F 4,%[3]d,40145614353,-;%[2]s")},
		{"a host in front of a syslog line", in("ip-10-0-1-5.ec2.internal Nov 29 13:49:23.123456 ip-10-0-1-5 kernel: %[2]s")},
		{"pdsh of a syslog", in("node-7: Nov 29 13:49:23 node-7 kernel: %[2]s")},
		{"the year first", in("2024 Nov 29 13:49:23 node-7 kernel: %[2]s")},
		{"a comma in the time", in("2024-11-29 13:49:23,123 node-7 kernel: %[2]s")},
		{"a web server's time", in("29/Nov/2024:13:49:23 +0000 node-7 kernel: %[2]s")},
		{"seconds since 1970", in("1732888163 node-7 kernel: %[2]s")},
		{"milliseconds since 1970", in("1732888163123 node-7 kernel: %[2]s")},
		{"TAI64N", in("@400000006749c5b3075bcd15 %[1]s %[2]s")},
		{"a host in brackets", in("Nov 29 13:49:23 [10.0.1.5.6665] %[1]s %[2]s")},
		{"an IPv6 address", in("Nov 29 13:49:23 fd00:10::5 %[1]s %[2]s")},
		{"the program behind a priority", in("<4>kernel: %[2]s")},
		{"the same with the kernel's time", in("<4>kernel: %[1]s %[2]s")},
		{"the program behind dmesg -T's time", in("[Fri Nov 29 13:49:23 2024] node-7 kernel: %[2]s")},
		{"tail -f", "==> /var/log/kern.log <==\n" + in("Nov 29 13:49:23 node-7 kernel: %[1]s %[2]s")},
		{"bat", in("%4[3]d   │ %[1]s %[2]s")},
		{"date's own form", in("Fri Nov 29 13:49:23 UTC 2024 %[1]s %[2]s")},

		// Containers and collectors.
		{"CRI in pieces", inPieces(dmesg)},
		{"kubectl logs --prefix --timestamps", in("[pod/dmesg-x7k9/dmesg] 2024-11-29T13:49:23.123456789Z %[1]s %[2]s")},
		{"stern", "+ dmesg-x7k9 › dmesg\n" + in("dmesg-x7k9 dmesg %[1]s %[2]s")},
		{"kail", in("default/dmesg-x7k9[dmesg]: %[1]s %[2]s")},
		{"docker's json-file with attributes", in(`{"log":"%[1]s %[2]s\n","stream":"stdout","attrs":{"tag":"app"},"time":"2024-11-29T13:49:23.123456789Z"}`)},
		{"docker's json-file of a syslog", in(`{"log":"Nov 29 13:49:23 node-7 kernel: %[2]s\n","stream":"stdout"}`)},
		{"fluent-bit's tail of a container", in(`{"log":"%[1]s %[2]s","stream":"stdout","kubernetes":{"pod_name":"dmesg-x7k9","labels":{"message":"no"}}}`)},
		{"fluent-bit's kmsg", in(`{"date":1732888163.123456,"priority":4,"sequence":100%[3]d,"sec":40145,"usec":614353,"msg":%[4]s}`)},
		{"fluent-bit's kmsg on stdout", in(`[0] kmsg.0: [[1732888163.123456789, {}], {"priority"=>4, "sequence"=>100%[3]d, "sec"=>40145, "usec"=>614353, "msg"=>%[4]s}]`)},
		{"fluent-bit's systemd", in(`{"date":1732888163.1,"PRIORITY":"4","SYSLOG_FACILITY":"0","SYSLOG_IDENTIFIER":"kernel","_TRANSPORT":"kernel","MESSAGE":%[4]s}`)},
		{"fluent-bit's systemd in lower case", in(`{"priority":"4","syslog_facility":"0","syslog_identifier":"kernel","_transport":"kernel","message":%[4]s}`)},
		{"fluentd's file", in("2024-11-29T13:49:23+00:00\tkern.warn\t" + `{"host":"node-7","ident":"kernel","message":%[4]s}`)},
		{"fluentd's stdout", in(`2024-11-29 13:49:23.000000000 +0000 syslog.kern.warn: {"host":"node-7","ident":"kernel","message":%[4]s}`)},
		{"vector's syslog", in(`{"appname":"kernel","facility":"kern","hostname":"node-7","message":%[4]s,"severity":"warning","source_type":"syslog"}`)},
		{"vector's journald", in(`{"PRIORITY":"4","SYSLOG_IDENTIFIER":"kernel","_TRANSPORT":"kernel","host":"node-7","message":%[4]s,"source_type":"journald"}`)},
		{"filebeat's system module", in(`{"message":%[4]s,"process":{"name":"kernel"},"event":{"dataset":"system.syslog"}}`)},
		{"filebeat's syslog", in(`{"message":%[4]s,"log":{"syslog":{"facility":{"code":0,"name":"kernel"},"appname":"kernel","priority":4}}}`)},
		{"filebeat's journald", in(`{"message":%[4]s,"syslog":{"identifier":"kernel","facility":0,"priority":4},"systemd":{"transport":"kernel"}}`)},
		{"ECS with dots", in(`{"message":%[4]s,"process.name":"kernel","log.syslog.facility.name":"kernel"}`)},
		{"GELF", in(`{"version":"1.1","host":"node-7","short_message":"%[1]s %[2]s","level":4}`)},
		{"GELF of a syslog", in(`{"version":"1.1","host":"node-7","short_message":%[4]s,"level":4,"_facility":"kern","_application_name":"kernel"}`)},
		{"OpenTelemetry", in(`{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":"1","body":{"stringValue":"%[1]s %[2]s"}}]}]}]}`)},
		{"OpenTelemetry's journald", in(`{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"body":{"kvlistValue":{"values":[{"key":"MESSAGE","value":{"stringValue":%[4]s}},{"key":"_TRANSPORT","value":{"stringValue":"kernel"}}]}}}]}]}]}`)},
		{"Talos' JSON", in(`{"clock":40145614353,"facility":"kern","msg":%[4]s,"priority":"warning","seq":71%[3]d,"talos-level":"warn"}`)},

		{"a collector of netconsole", in(`{"host":"10.0.1.5","message":"6.6.58-talos,4,%[3]d,40145614353,-;%[2]s"}`)},
		{"logstash's syslog", in(`{"facility_label":"kernel","facility":0,"severity":4,"program":"kernel","message":%[4]s,"logsource":"node-7"}`)},

		// Stores.
		{"Loki's API", `{"status":"success","data":{"resultType":"streams","result":[{"stream":{"job":"kern"},"values":[` + entries(`["1732888163123456789","%[1]s %[2]s"]`, ",") + `]}]}}`},
		{"logcli -o jsonl", in(`{"labels":{"job":"kern"},"line":"%[1]s %[2]s","timestamp":"2024-11-29T13:49:23.123456789Z"}`)},
		{"Grafana's text", in("2024-11-29T13:49:23.123Z\t%[1]s %[2]s")},
		{"Grafana's JSON", "[\n" + entries(`  {"line":"%[1]s %[2]s","timestamp":"1732888163123456789","fields":{"job":"kern"}}`, ",\n") + "\n]\n"},
		{"CloudWatch", "{\n    \"events\": [\n" + entries("        {\n            \"timestamp\": 1732888163123,\n            \"message\": \"%[1]s %[2]s\",\n            \"ingestionTime\": 1732888163999\n        }", ",\n") + "\n    ],\n    \"nextForwardToken\": \"f/1\"\n}\n"},
		{"CloudWatch in one line", `{"events":[` + entries(`{"timestamp":1732888163123,"message":"%[1]s %[2]s","ingestionTime":1}`, ",") + `]}`},
		{"CloudWatch as text", in("EVENTS\t1732888163999\t%[1]s %[2]s\t1732888163123")},
		{"CloudWatch of a collector", `{"events":[` + entries(`{"timestamp":1732888163123,"message":"{\"host\":\"node-7\",\"ident\":\"kernel\",\"message\":\"%[1]s %[2]s\"}"}`, ",") + `]}`},
		{"CloudWatch Insights", `{"results":[` + entries(`[{"field":"@timestamp","value":"2024-11-29 13:49:23.123"},{"field":"@message","value":"%[1]s %[2]s"}]`, ",") + `],"status":"Complete"}`},
		{"CloudWatch Insights as CSV", "@timestamp,@message\n" + in(`2024-11-29 13:49:23.123,"%[1]s %[2]s"`)},
		{"Elasticsearch, a hit per line", in(`{"_index":"k","_source":{"@timestamp":"2024-11-29T13:49:23Z","message":"%[1]s %[2]s","host":{"name":"node-7"}}}`)},
		{"Elasticsearch's answer", `{"hits":{"hits":[` + entries(`{"_source":{"message":"%[1]s %[2]s"}}`, ",") + `]}}`},
		{"Splunk", in(`{"preview":false,"result":{"_raw":"Nov 29 13:49:23 node-7 kernel: %[1]s %[2]s","host":"node-7"}}`)},
		{"Loggly", in(`{"events":[{"logmsg":"<4>1 2024-11-29T13:49:23Z node-7 kernel - - - %[1]s %[2]s"}]}`)},
		{"VictoriaLogs", in(`{"_msg":"%[1]s %[2]s","_time":"2024-11-29T13:49:23Z","_stream":"{}"}`)},
		{"VictoriaLogs of a journal", in(`{"_msg":%[4]s,"_time":"2024-11-29T13:49:23Z","_TRANSPORT":"kernel","SYSLOG_IDENTIFIER":"kernel"}`)},
		{"Kibana as CSV", "\"@timestamp\",message\n" + in(`"Nov 29, 2024 @ 13:49:23.123","%[1]s %[2]s"`)},
		{"Datadog", in(`{"id":"1","content":{"message":"%[1]s %[2]s","service":"kernel"}}`)},
		{"Azure", in(`{"TimeGenerated":"2024-11-29T13:49:23Z","Facility":"kern","SeverityLevel":"warning","SyslogMessage":%[4]s,"ProcessName":"kernel"}`)},
		{"gcloud logging read", "[\n" + entries("  {\n    \"insertId\": \"1\",\n    \"jsonPayload\": {\n      \"SYSLOG_IDENTIFIER\": \"kernel\",\n      \"_TRANSPORT\": \"kernel\",\n      \"MESSAGE\": %[4]s\n    }\n  }", ",\n") + "\n]\n"},
		{"gcloud logging read of a serial port", "[\n" + entries("  {\n    \"insertId\": \"1\",\n    \"textPayload\": \"%[1]s %[2]s\"\n  }", ",\n") + "\n]\n"},

		// Consoles.
		{"gcloud's serial port", fmt.Sprintf("{\n  \"contents\": %q,\n  \"next\": \"9\"\n}\n", console)},
		{"EC2's API", fmt.Sprintf("{\n    \"InstanceId\": \"i-0abc\",\n    \"Output\": %q\n}\n", base64.StdEncoding.EncodeToString([]byte(console)))},
		{"EC2's API, the output alone", base64.StdEncoding.EncodeToString([]byte(console)) + "\n"},
		{"EC2 in one line", fmt.Sprintf("{\"InstanceId\":\"i-0abc\",\"Output\":%q}", console)},
		{"minicom", "\x1b[H\x1b[J\r\nWelcome to minicom 2.9\r\n" + strings.ReplaceAll(dmesg, "\n", "\r\r\n")},
		{"a terminal's control characters", in("\x1b]0;root@node-7\x07\x1b[K\x1b[0;1m%[1]s\x1b[0m %[2]s\x1b[K\r")},
		{"a terminal's bell and backspaces", in("\x07\b\b%[1]s %[2]s")},
		{"broken at 80 columns", brokenAt(80, dmesg)},
		{"broken at 100 columns", brokenAt(100, dmesg)},
		{"grabserial", in("[12.345678 0.000012] %[1]s %[2]s")},
		{"LAVA", in("2024-11-29T13:49:23.123456  <4>%[1]s %[2]s")},
		{"LAVA's YAML", in(`- {"dt": "2024-11-29T13:49:23.123456", "lvl": "target", "msg": "%[1]s %[2]s"}`)},
		{"Xen's console", in("(d1) %[1]s %[2]s")},
		{"script", "Script started on 2024-11-29 13:49:23+00:00\n" + console},

		// Files.
		{"a byte order mark", "\ufeff" + console},
		{"UTF-16", utf16Text(binary.LittleEndian, console)},
		{"UTF-16, the other way round", utf16Text(binary.BigEndian, console)},
		{"UTF-16 without a byte order mark", utf16Text(binary.LittleEndian, console)[2:]},
		{"UTF-16 without it, the other way round", utf16Text(binary.BigEndian, console)[2:]},
		{"base64, indented", "    " + strings.ReplaceAll(brokenAt(76, base64.StdEncoding.EncodeToString([]byte(console))), "\n", "\n\t")},
		{"gzip", gzipped(dmesg)},
		{"gzip in base64", base64.StdEncoding.EncodeToString([]byte(gzipped(dmesg)))},
	}
}

func TestReplayFindsTheKernelInExports(t *testing.T) {
	const want = "dying KernelPanic: general protection fault in is_uprobe_at_func_entry"
	for _, tt := range exported() {
		t.Run(tt.name, func(t *testing.T) {
			got, reading := logReplay(t, tt.log)
			if diff := cmp.Diff([]string{want}, got); diff != "" {
				t.Errorf("incidents (-want +got):\n%s%.300q", diff, tt.log)
			}
			if reading.Kernel == 0 {
				t.Error("no line was recognised as a kernel's")
			}
			other := strings.ReplaceAll(tt.log, "kernel", "kubelet")
			if got, _ := logReplay(t, other); len(got) > 0 && other != tt.log {
				t.Errorf("the same of another program was read as %q\n%.300q", got, other)
			}
		})
	}
}

// A path that a terminal broke looks like a line of source that grep has found.
func TestReplayOfAPathThatIsBroken(t *testing.T) {
	got, _ := logReplay(t, brokenAt(80, string(read(t, "testdata/logs/path-absolute.log"))))
	if diff := cmp.Diff([]string{"sick KernelBug: UBSAN: array-index-out-of-bounds at lpm_trie.c in longest_prefix_match"}, got); diff != "" {
		t.Errorf("incidents (-want +got):\n%s", diff)
	}
}

// What a program says of a kernel stays a quotation in exports, too.
func TestReplayLeavesQuotationsInExportsAlone(t *testing.T) {
	const panicked, stamped = "Kernel panic - not syncing: sysrq triggered crash", "[   12.345678] Kernel panic - not syncing: sysrq triggered crash"
	for _, log := range []string{
		`{"time":"2024-11-29T13:49:23Z","priority":"error","msg":"` + panicked + `"}`,
		`{"time":"12.345678","priority":"error","msg":"` + panicked + `"}`,
		`{"dmesg":[{"pri":12,"time":12.345678,"msg":"` + panicked + `"}]}`,
		`{"dmesg":[{"fac":"user","pri":"err","time":12.345678,"msg":"` + panicked + `"}]}`,
		`{"dmesg":[{"fac":"kern","pri":"err","time":12.345678,"msg":"` + stamped + `"}]}`,
		`{"events":[{"timestamp":1732888163123,"message":"` + panicked + `"}]}`,
		`{"events":[{"timestamp":1732888163123,"message":"{\"msg\":\"` + panicked + `\"}"}]}`,
		`{"events":[{"timestamp":1732888163123,"message":"{\"ident\":\"kubelet\",\"message\":\"` + stamped + `\"}"}]}`,
		`{"log":"{\"ident\":\"kernel\",\"message\":\"` + stamped + `\"}","kubernetes":{"pod_name":"shipper"}}`,
		`{"short_message":"` + panicked + `","facility":"gelf-rb"}`,
		`{"hits":{"hits":[{"_source":{"message":"` + stamped + `","process":{"name":"kubelet"}}}]}}`,
		`{"results":[[{"field":"@message","value":"` + panicked + `"}]]}`,
		`{"body":{"kvlistValue":{"values":[{"key":"MESSAGE","value":{"stringValue":"` + panicked + `"}},{"key":"_TRANSPORT","value":{"stringValue":"stdout"}}]}}}`,
		`[0] kmsg.0: [1732888163.1, {"priority"=>3, "msg"=>"` + panicked + `"}]`,
		`[0] app.0: [1732888163.1, {"log"=>"` + stamped + `"}]`,
		`2024-11-29 13:49:23 my.logger: {"msg":"` + stamped + `"}`,
		`2024-11-29T13:49:23.1Z stdout F {"msg":"` + stamped + `"}`,
		"2024-11-29T13:49:23.1Z stdout P Kernel panic - not\n2024-11-29T13:49:23.1Z stdout F  syncing: sysrq triggered crash",
		"Nov 29 13:49:23 conserver: Nov 29 13:49:22 vm1 kernel: " + panicked,
		"Nov 29 13:49:23 node-7 conserver: Nov 29 13:49:22 vm1 kernel: " + panicked,
		"Nov 29 13:49:23 10.0.1.5 12,1000,40145614353,-;" + panicked,
		"Nov 29 13:49:23 node-7 kernel: 4,1000,40145614353,-;" + panicked,
		"99 <14>Nov 29 13:49:23 node-7 kernel: " + panicked,
		"99 <4>1 2024-11-29T13:49:23Z node-7 conserver - - - " + stamped,
		"1 2024-11-29T13:49:23Z node-7 conserver - - - " + stamped,
		"1 2024-11-29T13:49:23Z node-7 - - - - " + stamped,
		"<4>conserver: " + stamped,
		"[Fri Nov 29 13:49:23 2024] node-7 conserver[7]: " + stamped,
		"Nov 29 13:49:23 [   40.000000] " + stamped,
		"1732888163 node-7 conserver: " + stamped,
		"29/Nov/2024:13:49:23 +0000 " + panicked,
		"daemon.warning: Nov 29 13:49:23 node-7 kernel: " + panicked,
		"user  :warn  : 2024-11-29T13:49:23,123456+00:00 " + panicked,
		"[   12.345678] " + strings.Repeat("x", 80-15) + "\n" + panicked,
		"[    1.000000] eth0: up\n" + `{"_TRANSPORT":"kernel","MESSAGE":"` + panicked + `"}`,
		"Nov 29 13:49:23 node-7 kernel: kubelet[9]: x#012" + panicked,
	} {
		if got, _ := logReplay(t, log); len(got) > 0 {
			t.Errorf("%q was read as %q", log, got)
		}
	}
}

// Whatever begins like a document and is none hides nothing.
func TestReplayOfWhatOnlyBeginsLikeADocument(t *testing.T) {
	const panicked = "[   12.345678] Kernel panic - not syncing: x"
	for _, log := range []string{
		"{\n" + panicked + "\n}\n",
		"[\n" + panicked,
		"{\"unit\": {\n" + panicked,
		`{"unit": "cut` + "\n" + panicked,
		"{\n" + strings.Repeat("  \"x\": 1,\n", 5000) + panicked,
		"{}\n[]\n" + panicked,
		strings.Repeat("[", 100) + "\n" + panicked,
	} {
		got, _ := logReplay(t, log)
		if diff := cmp.Diff([]string{"dying KernelPanic: x"}, got); diff != "" {
			t.Errorf("%.80q (-want +got):\n%s", log, diff)
		}
	}
}

// An export is one long line, and more than is ever kept of a document.
func TestReplayOfALargeExport(t *testing.T) {
	const entry = `{"timestamp":1732888163123,"message":"[    1.000000] eth0: up"},`
	log := `{"events":[` + strings.Repeat(entry, 20000) + `{"timestamp":1732888163123,"message":"[    2.000000] Kernel panic - not syncing: x"}]}`
	got, reading := logReplay(t, log)
	if diff := cmp.Diff([]string{"dying KernelPanic: x"}, got); diff != "" || reading.Kernel != 20001 {
		t.Errorf("%d lines, incidents (-want +got):\n%s", reading.Kernel, diff)
	}
}

// A file that was cut, as when its machine died while it was written, is judged as far as it goes.
func TestReplayOfAFileThatIsCut(t *testing.T) {
	log := "[   12.345678] Kernel panic - not syncing: x\n" + strings.Repeat("[   12.345679] Call Trace:\n", 2000)
	plain := base64.StdEncoding.EncodeToString([]byte(log))
	for name, cut := range map[string]string{
		"gzip":              gzipped(log)[:len(gzipped(log))-20],
		"gzip and not gzip": gzipped(log) + "this is not",
		"base64":            plain[:len(plain)-5],
		"base64 and not":    plain[:len(plain)-4] + "!\n",
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			reading, err := Replay(strings.NewReader(cut), &out, &detect.Config{}, Auto)
			if reading.Incidents != 1 || !strings.Contains(out.String(), `"title":"x"`) {
				t.Errorf("%d incidents: %s", reading.Incidents, out.String())
			}
			if err == nil || !strings.HasPrefix(err.Error(), "line ") || !strings.HasSuffix(err.Error(), "; what comes before was judged") {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

func TestReplayNamesACompressionThatItCannotRead(t *testing.T) {
	for begin, want := range map[string]string{
		"\xfd7zXZ\x00\x00":         "it is compressed with xz; write `xz -dc FILE | lastgasp-listener replay -`",
		"\x28\xb5\x2f\xfd\x00":     "it is compressed with zstd; write `zstd -dc FILE | lastgasp-listener replay -`",
		"PK\x03\x04\x14\x00":       "it is a zip archive; write `unzip -p FILE | lastgasp-listener replay -`",
		"LPKSHHRH\x00\x00\x00\x00": "it is a journal's own file; write `journalctl --file FILE -k -o json | lastgasp-listener replay -`",
		"KDUMP   \x06\x00\x00\x00": "it is a dump of a kernel; write `makedumpfile --dump-dmesg FILE LOG && cat LOG | lastgasp-listener replay -`",
		"\x1f\x8bnot gzip":         "read gzip: gzip: invalid header",
	} {
		if _, err := Replay(strings.NewReader(begin), nil, nil, Auto); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", begin, err, want)
		}
	}
}
