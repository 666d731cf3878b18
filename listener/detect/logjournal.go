package detect

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/lastgasp/lastgasp/listener/lazyregexp"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// Fields are the named values of an entry of a log. A value inside an object has a path, such as "_source.process.name", and is
// found by any end of it, in upper or lower case, that no value further out has.
type fields map[string]value

type value struct {
	text string
	path string
}

// depth is how many objects it stands in.
func (v value) depth() int { return strings.Count(v.path, ".") }

// newFields returns the fields of a JSON value, nil if it cannot be an entry: an object, a list of names with values (CloudWatch's
// Insights, OpenTelemetry), or a time with a line (Loki).
func newFields(v any) fields {
	f := make(fields)
	switch v := v.(type) {
	case map[string]any:
		if _, pair := nameOf(v); pair {
			return nil
		}
		f.add("", v)
	case []any:
		if !f.addPairs("", v) && !f.addTimed(v) {
			return nil
		}
	default:
		return nil
	}
	return f
}

// add adds what stands in an object, in a fixed order.
func (f fields) add(path string, object map[string]any) {
	for _, key := range slices.Sorted(maps.Keys(object)) {
		at := path + key
		switch v := object[key].(type) {
		case string:
			f.put(at, v)
		case json.Number:
			f.put(at, v.String())
		case map[string]any:
			f.add(at+".", v)
		case []any:
			if !f.addPairs(at+".", v) {
				f.put(at, joined(v))
			}
		}
	}
}

// maxPath bounds the path of a value, in bytes. A longer one is nobody's that is looked for, and would have too many ends.
const maxPath = 512

// put adds a value under every end of its path.
func (f fields) put(path, text string) {
	if len(path) > maxPath {
		return
	}
	v := value{text, path}
	for name := strings.ToLower(path); ; {
		if old, found := f[name]; !found || v.depth() < old.depth() {
			f[name] = v
		}
		_, end, found := strings.Cut(name, ".")
		if !found {
			return
		}
		name = end
	}
}

// addPairs adds a list of objects that are a name and a value.
func (f fields) addPairs(path string, list []any) bool {
	pairs := 0
	for _, element := range list {
		object, ok := element.(map[string]any)
		if !ok {
			return false
		}
		name, ok := nameOf(object)
		if !ok {
			return false
		}
		value := object["value"]
		if inner, ok := value.(map[string]any); ok {
			value = inner["stringValue"]
		}
		if text, ok := value.(string); ok {
			f.put(path+strings.TrimPrefix(name, "@"), text)
			pairs++
		}
	}
	return pairs > 0
}

// nameOf is the name in an object that is a name and a value.
func nameOf(object map[string]any) (name string, ok bool) {
	if len(object) != 2 || object["value"] == nil {
		return "", false
	}
	name, ok = cmp.Or(object["field"], object["key"]).(string)
	return name, ok
}

// addTimed adds a list of a time in nanoseconds and a line.
func (f fields) addTimed(list []any) bool {
	if len(list) < 2 || len(list) > 3 {
		return false
	}
	at, _ := list[0].(string)
	line, ok := list[1].(string)
	if !ok || len(at) != len("1732888163000000000") || !isDigits(at) {
		return false
	}
	f.put("line", line)
	return true
}

// joined is a list as text: bytes that are not UTF-8 (systemd's Journal JSON Format), or several texts.
func joined(list []any) string {
	var b strings.Builder
	for i, element := range list {
		switch v := element.(type) {
		case json.Number:
			n, err := strconv.ParseUint(v.String(), 10, 8)
			if err != nil {
				return ""
			}
			b.WriteByte(byte(n))
		case string:
			if i > 0 {
				b.WriteByte('\n')
			}
			b.WriteString(v)
		default:
			return ""
		}
	}
	return b.String()
}

// get is the first of these fields that is not empty.
func (f fields) get(names ...string) string {
	for _, name := range names {
		if v := f[name]; v.text != "" {
			return v.text
		}
	}
	return ""
}

// text is the line of log in the entry: the field furthest out of those that have one.
func (f fields) text() string {
	var best value
	for _, name := range [...]string{"message", "msg", "log", "line", "_raw", "_msg", "logmsg", "textpayload", "short_message", "syslogmessage", "body", "stringvalue", "text", "content", "event"} {
		if v := f[name]; v.text != "" && (best.text == "" || v.depth() < best.depth()) {
			best = v
		}
	}
	return best.text
}

// record reads the record of an entry. What is not the journal's is an envelope around a line: a container's log, a syslog
// daemon's, an export. ok is false if there is no text in it.
func (f fields) record() (r netconsole.Record, how origin, ok bool) {
	text := f.text()
	switch {
	case strings.TrimSpace(text) == "":
		return r, foreign, false
	case f.isKmsg():
		r, how = f.kmsg()
	case f.get("program") != "" && f.transport() == "": // syslog-ng's, whose names are in upper case, too
		r, how = f.enveloped(text)
	case f["message"].path == "MESSAGE", strings.HasSuffix(f["message"].path, ".MESSAGE"), f.transport() != "":
		r, how = f.journal()
	default:
		r, how = f.enveloped(text)
	}
	f.note(&r)
	return r, how, true
}

// note adds the host, the boot and the time that the entry names, unless its line has.
func (f fields) note(r *netconsole.Record) {
	note(r, KeyHost, f.host())
	note(r, netconsole.KeyBoot, f.get("_boot_id"))
	note(r, KeyTime, f.get("@timestamp", "timestamp", "_time", "time", "timegenerated", "date"))
	note(r, KeyTime, f.get("__realtime_timestamp"))
}

// host is the machine that the entry is from, or the stream of a store, which is that of one machine.
func (f fields) host() string {
	return f.get("_hostname", "hostname", "host", "host.name", "host.ip", "logsource", "computer", "node_name", "node", "instance",
		"instance_id", "instanceid", "logstreamname", "logstream")
}

// transport is how the entry came to the journal.
func (f fields) transport() string { return f.get("_transport", "systemd.transport") }

// isKmsg reports whether the entry is what `dmesg --json` or fluent-bit's kmsg make of a record of /dev/kmsg.
func (f fields) isKmsg() bool {
	sec, us, _ := strings.Cut(f.get("time"), ".")
	dmesg := f.get("pri") != "" && isDigits(sec) && isDigits(us)
	return f.get("msg") != "" && (dmesg || f.get("priority") != "" && isDigits(f.get("sec")) && isDigits(f.get("usec")))
}

// kmsg reads such an entry.
func (f fields) kmsg() (netconsole.Record, origin) {
	r := netconsole.Record{Prefix: -1, Uptime: -1}
	level := f.get("pri", "priority")
	if n, err := strconv.ParseUint(level, 10, 8); err == nil {
		r.Prefix = int(n)
	} else {
		r.Prefix = levelOf(level)
	}
	if name := f.get("fac"); facilityOf(name) != 0 && name != "" {
		r.Prefix = facilityOf(name)<<3 | r.Prefix&7
	}
	sec, us, _ := strings.Cut(f.get("time"), ".")
	if f.get("sec") != "" {
		n, _ := strconv.Atoi(f.get("usec"))
		sec, us = f.get("sec"), strconv.Itoa(n)
	}
	r.Uptime = seconds(sec, us)
	return withText(r, f.get("msg"), addressed)
}

// journal reads the record of an entry of the journal (systemd.journal-fields(7)), whoever has handed it on. Its text is the
// kernel's message as it is: a time stamp in it is a quotation.
func (f fields) journal() (netconsole.Record, origin) {
	r := netconsole.Record{Prefix: 0, Uptime: -1}
	text := strings.TrimRight(f.text(), " \t\r\n")
	facility := f.get("syslog_facility", "syslog.facility")
	switch transport := f.transport(); {
	case strings.TrimSpace(text) == "":
		return r, foreign
	case transport != "" && transport != "kernel": // `logger -t kernel` has "syslog"
		return r, foreign
	case transport == "" && f.get("syslog_identifier") != "kernel":
		return r, foreign
	case facility != "" && facility != "0": // /dev/kmsg
		return r, foreign
	}
	if n, err := strconv.Atoi(f.get("priority")); err == nil && n >= 0 && n < 8 {
		r.Prefix = n
	}
	if us := f.get("_source_monotonic_timestamp"); len(us) > 6 && len(us) < 16 && isDigits(us) {
		r.Uptime = seconds(us[:len(us)-6], us[len(us)-6:])
	}
	r.Text = []byte(text)
	return r, addressed
}

// program is who the entry says has written it, empty if it does not say.
func (f fields) program() string {
	return strings.TrimRight(f.get("_transport", "syslog_identifier", "syslog.identifier", "programname", "program", "appname", "app-name",
		"app_name", "application_name", "_application_name", "ident", "syslogtag", "syslog-tag", "process.name", "processname", "process_name", "service"), ":")
}

// foreign reports whether the entry names another program than the kernel, or is as programs write of themselves: a "level" and a "msg",
// and no host. A logger or component called "kernel" may be any program's, and proves nothing.
func (f fields) foreign() bool {
	name := cmp.Or(f.program(), f.get("logger", "component"))
	if name == "" && f["level"].path == "level" && f["msg"].path == "msg" && f.get("facility", "host", "hostname") == "" {
		return true
	}
	return name != "" && name != "kernel" || f.written() || strings.Contains(f.get("caller"), ".")
}

// written reports whether somebody has written the text: a chat's message, a ticket, an event of Kubernetes.
func (f fields) written() bool {
	if f.get("kind") == "Event" {
		return true
	}
	for _, text := range [...]string{"text", "content", "body"} {
		beside := strings.TrimSuffix(strings.ToLower(f[text].path), text)
		for _, by := range [...]string{"role", "user", "author", "username", "channel", "subject", "title", "user.login", "author.login", "author.name", "author.displayName"} {
			if v := f[by]; f[text].text != "" && v.text != "" && strings.ToLower(v.path) == beside+by {
				return true
			}
		}
	}
	return false
}

// contained reports whether the entry is from the log of a container.
func (f fields) contained() bool {
	return f.get("stream", "_p", "container_name", "container_id", "pod_name", "container.id") != ""
}

// enveloped reads a line of log that stands in an entry.
func (f fields) enveloped(text string) (netconsole.Record, origin) {
	program := f.program()
	facility := strings.ToLower(f.get("facility", "_facility", "syslogfacility-text", "facility_label", "facility.name", "facility.code"))
	if tag := f["tag"]; program == "" && tag.path == "tag" && tag.text != "" {
		program = strings.TrimRight(tag.text, ":")
		if kernelTag.MatchString(program) {
			program = ""
		}
	}
	switch {
	case f.foreign(), program != "" && program != "kernel", facility != "" && facility != "kern" && facility != "kernel" && facility != "0":
		return netconsole.Record{}, foreign
	case strings.HasPrefix(strings.TrimSpace(text), "{"):
		return f.nested(text)
	case program == "kernel", facility != "":
		text = "kernel: " + text
	}
	r, how := parseLine(text)
	if how < marked {
		return r, foreign
	}
	return r, addressed
}

// kernelTag is what collectors call the source of kernel messages.
var kernelTag = lazyregexp.New(`^(?:kernel|kern|kmsg|dmesg)(?:$|[.-])`)

// nested reads an entry that stands as text in another: a collector's, in what a store exports. In the log of a container it is
// that program's own output.
func (f fields) nested(text string) (netconsole.Record, origin) {
	if f.contained() {
		return netconsole.Record{}, foreign
	}
	var object map[string]any
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	if dec.Decode(&object) != nil {
		return netconsole.Record{}, foreign
	}
	inner := newFields(object)
	if strings.HasPrefix(strings.TrimSpace(inner.text()), "{") {
		return netconsole.Record{}, foreign
	}
	r, how, _ := inner.record()
	return r, how
}

// decodeConsole is the text of a console, which the API of EC2 gives in base64.
func decodeConsole(text string) string {
	if plain, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text)); err == nil && utf8.Valid(plain) {
		return string(plain)
	}
	return text
}

// isDigits reports whether s is a decimal number of at least one digit.
func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
