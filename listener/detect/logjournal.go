package detect

import (
	"cmp"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// jsonEntry reads a line that is a JSON object: journalctl -o json, docker's json-file, fluent-bit and the like. Values that
// are neither text nor bytes are left out.
func jsonEntry(line string) (entry map[string]string, ok bool) {
	text := strings.TrimSpace(strings.TrimPrefix(line, "data: ")) // -o json-sse
	text = strings.TrimSuffix(text, ",")
	if !strings.HasPrefix(text, "{") || !strings.HasSuffix(text, "}") {
		return nil, false
	}
	var fields map[string]any
	if err := json.Unmarshal([]byte(text), &fields); err != nil {
		return nil, false
	}
	entry = make(map[string]string, len(fields))
	addFields(entry, fields)
	return entry, true
}

// addFields adds the texts in a JSON object, those of objects in it included: jsonPayload, _source.
func addFields(entry map[string]string, fields map[string]any) {
	for key, value := range fields {
		switch v := value.(type) {
		case string:
			entry[key] = v
		case map[string]any:
			addFields(entry, v)
		case []any: // bytes that are not UTF-8
			b := make([]byte, 0, len(v))
			for _, n := range v {
				if f, ok := n.(float64); ok {
					b = append(b, byte(f))
				}
			}
			entry[key] = string(b)
		}
	}
}

// parseJSON reads the record of an entry. What is not the journal's is an envelope around a line: a container's log, a
// syslog daemon's.
func parseJSON(entry map[string]string) (netconsole.Record, origin) {
	if entry["MESSAGE"] != "" {
		return parseEntry(entry)
	}
	text := cmp.Or(entry["log"], entry["message"], entry["msg"], entry["line"], entry["textPayload"])
	if text == "" || strings.HasPrefix(strings.TrimSpace(text), "{") {
		return netconsole.Record{}, foreign
	}
	program := strings.TrimRight(cmp.Or(entry["_TRANSPORT"], entry["SYSLOG_IDENTIFIER"], entry["programname"], entry["appname"],
		entry["app-name"], entry["ident"], entry["syslogtag"], entry["tag"]), ":")
	facility := cmp.Or(entry["facility"], entry["syslogfacility-text"])
	switch {
	case program != "" && program != "kernel", facility != "" && facility != "kern" && facility != "0":
		return netconsole.Record{}, foreign
	case program == "kernel", facility != "":
		text = "kernel: " + text
	}
	r, how := parseLine(text)
	if how < marked {
		return r, foreign
	}
	return r, addressed
}

// parseEntry reads the record of an entry of the journal (systemd.journal-fields(7)). Its text is the kernel's message as it
// is: a time stamp in it is a quotation.
func parseEntry(entry map[string]string) (netconsole.Record, origin) {
	r := netconsole.Record{Prefix: 0, Uptime: -1}
	text := strings.TrimRight(entry["MESSAGE"], " \t\r\n")
	switch transport := entry["_TRANSPORT"]; {
	case strings.TrimSpace(text) == "":
		return r, foreign
	case transport != "" && transport != "kernel": // `logger -t kernel` has "syslog"
		return r, foreign
	case transport == "" && entry["SYSLOG_IDENTIFIER"] != "kernel":
		return r, foreign
	case entry["SYSLOG_FACILITY"] != "" && entry["SYSLOG_FACILITY"] != "0": // /dev/kmsg
		return r, foreign
	}
	if n, err := strconv.Atoi(entry["PRIORITY"]); err == nil && n >= 0 && n < 8 {
		r.Prefix = n
	}
	if us := entry["_SOURCE_MONOTONIC_TIMESTAMP"]; len(us) > 6 && len(us) < 16 && isDigits(us) {
		r.Uptime = seconds(us[:len(us)-6], us[len(us)-6:])
	}
	r.Text = []byte(text)
	return r, addressed
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
