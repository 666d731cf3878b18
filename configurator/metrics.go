package configurator

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/lastgasp/lastgasp/listener/atomicfile"
)

// MetricsFile is what node_exporter's textfile collector reads, in the directory that --textfile names.
const MetricsFile = "metrics.prom"

// WriteMetrics writes this node's metrics if a directory for them is set. A failure is only logged; older metrics are removed then.
func (c *Configurator) WriteMetrics() {
	if c.Textfile == "" {
		return
	}
	status, err := c.Status(nil)
	var b bytes.Buffer
	if err == nil {
		err = status.writeMetrics(&b)
	}
	if err == nil {
		err = atomicfile.Write(filepath.Join(c.Textfile, MetricsFile), b.Bytes(), 0o644)
	}
	if err != nil {
		c.Log.Warn("metrics are not written", "err", err)
		c.removeMetrics()
	}
}

// removeMetrics removes what WriteMetrics has written: nobody would write it anew, and it would go on saying what was true once.
func (c *Configurator) removeMetrics() {
	if c.Textfile == "" {
		return
	}
	if err := os.Remove(filepath.Join(c.Textfile, MetricsFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.Log.Warn("metrics of before stay, and are no longer true", "err", err)
	}
}

// writeMetrics writes s in the OpenMetrics text format, restricted to what Prometheus' own text format has too.
func (s Status) writeMetrics(w io.Writer) error {
	var b strings.Builder
	gauge := func(name, help string) {
		fmt.Fprintf(&b, "# HELP lastgasp_configurator_%s %s\n# TYPE lastgasp_configurator_%[1]s gauge\n", name, help)
	}
	gauge("info", "The version of lastgasp-configurator, and the kernel it watches over.")
	fmt.Fprintf(&b, "lastgasp_configurator_info{version=%s,kernel=%s} 1\n", label(s.Facts.Version), label(s.Facts.Kernel))
	gauge("verdict", "1 for the current verdict.")
	for _, v := range verdicts {
		fmt.Fprintf(&b, "lastgasp_configurator_verdict{verdict=%s} %d\n", label(string(v)), number(v == s.Verdict))
	}
	if l := s.LastPass; l != nil {
		gauge("last_pass_timestamp_seconds", "When the last pass ended.")
		fmt.Fprintf(&b, "lastgasp_configurator_last_pass_timestamp_seconds %.3f\n", float64(l.Time.UnixMilli())/1e3)
		gauge("last_pass_failed", "1 if it failed.")
		fmt.Fprintf(&b, "lastgasp_configurator_last_pass_failed %d\n", number(l.Failed != ""))
	}
	if p := s.PreviousBoot; p != nil {
		gauge("previous_boot_died", "1 if no shutdown ended the previous boot; what did, and how that is known.")
		fmt.Fprintf(&b, "lastgasp_configurator_previous_boot_died{cause=%s,evidence=%s} %d\n", label(p.Cause), label(p.Evidence), number(!p.Orderly()))
	}
	for _, m := range []struct {
		name, help string
		value      func(TargetView) (float64, bool)
	}{
		{"target_enabled", "1 if the kernel sends through the target.", func(v TargetView) (float64, bool) { return float64(number(v.Enabled)), true }},
		{"target_acknowledged", "1 if its listener acknowledged the latest canary.", func(v TargetView) (float64, bool) { return float64(number(v.Acked)), true }},
		{"target_last_ack_timestamp_seconds", "When its listener last acknowledged a canary.", func(v TargetView) (float64, bool) {
			return float64(v.LastAck.UnixMilli()) / 1e3, !v.LastAck.IsZero()
		}},
		{"target_round_trip_seconds", "From the kernel log to the acknowledgement.", func(v TargetView) (float64, bool) { return v.RTT.Seconds(), v.RTT > 0 }},
	} {
		gauge(m.name, m.help)
		for _, t := range s.Targets {
			if value, ok := m.value(t); ok {
				fmt.Fprintf(&b, "lastgasp_configurator_%s{target=%s,listener=%s,device=%s} %v\n", m.name, label(t.Name), label(t.remote()), label(t.Device), value)
			}
		}
	}
	b.WriteString("# EOF\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func label(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}
