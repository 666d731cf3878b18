package listener

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/lastgasp/lastgasp/listener/detect"
)

func TestShippedLines(t *testing.T) {
	for _, tt := range []struct {
		name, payload string
		want          string // one line, what every line has left out
	}{
		{
			"an extended record without its secret", "6.12.117,0,400,9000123,-,caller=T1;Kernel panic" + userdata,
			`"instance":"i-0abc","boot":"7f3c2f6e-0000-4000-8000-000000000001","release":"6.12.117","facility":0,"level":0,"seq":400,"uptime":9.000123,"caller":"T1","text":"Kernel panic"`,
		},
		{
			"the kernel's own fields", "30,2,7,-;usb 1-1: new device\n SUBSYSTEM=usb\n DEVICE=c189:1\n",
			`"facility":3,"level":6,"seq":2,"uptime":0.000007,"text":"usb 1-1: new device","fields":{"DEVICE":"c189:1","SUBSYSTEM":"usb"}`,
		},
		{"a basic record", "[    3.594994] RDX: 0\n", `"uptime":3.594994,"text":"RDX: 0"`},
		{"what turns the text around, and a second line", "0,1,1,-;\\xe2\\x80\\xaex\\x0ay\n k=\xe2\x80\xae\n",
			`"facility":0,"level":0,"seq":1,"uptime":0.000001,"text":"\\xe2\\x80\\xaex\ny","fields":{"k":"\\xe2\\x80\\xae"}`},
		{"what is not UTF-8", "0,1,1,-;\\xff\\x1b[m\n", `"facility":0,"level":0,"seq":1,"uptime":0.000001,"text":"\\xff\\x1b[m"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			ship := NewShipper(&out, NewMetrics(prometheus.NewRegistry(), new(detect.Config)), slog.New(slog.DiscardHandler))
			shippingShard(new(sink), ship).Receive(epoch, nodeA, []byte(tt.payload))
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := ship.Run(ctx); err != nil {
				t.Fatal(err)
			}
			want := `{"time":"2026-11-21T03:00:00Z","source":"10.77.1.5:6665",` + tt.want + "}\n"
			if diff := cmp.Diff(want, out.String()); diff != "" {
				t.Errorf("shipped (-want +got):\n%s", diff)
			}
		})
	}
}

// stuck is a reader that has gone away without hanging up.
type stuck struct{ release chan struct{} }

func (s stuck) Write(b []byte) (int, error) {
	<-s.release
	return len(b), nil
}

func TestNobodyWaitsForWhoeverReadsTheRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := new(sink)
		pipe := stuck{make(chan struct{})}
		ship := NewShipper(pipe, NewMetrics(prometheus.NewRegistry(), new(detect.Config)), slog.New(slog.DiscardHandler))
		sh := shippingShard(s, ship)
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() { ship.Run(ctx) })
		line := kernelRecord(1, strings.Repeat("x", 900))
		const sent = 4 * maxUnshipped / 1024
		for i := range sent {
			sh.Receive(epoch, node(i/1000), line)
		}
		synctest.Wait()
		dropped := counter(t, ship.metrics.shipDropped)
		if dropped == 0 || dropped == sent {
			t.Errorf("%v of %d records dropped, want some", dropped, sent)
		}
		if n := len(ship.lines); n > maxUnshipped {
			t.Errorf("%d bytes wait, want %d at most", n, maxUnshipped)
		}
		sh.Receive(epoch, nodeA, kernelRecord(8, "Kernel panic - not syncing: Fatal exception"))
		if len(s.incidents) != 1 {
			t.Error("a panic is not heard while shipping is stuck")
		}
		cancel()
		done.Wait() // ends although the write does not
		close(pipe.release)
		synctest.Wait()
	})
}

func TestFailedWritesAreCounted(t *testing.T) {
	r, w := io.Pipe()
	r.Close()
	ship := NewShipper(w, NewMetrics(prometheus.NewRegistry(), new(detect.Config)), slog.New(slog.DiscardHandler))
	shippingShard(new(sink), ship).Receive(epoch, nodeA, kernelRecord(1, "link becomes ready"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ship.Run(ctx)
	if dropped, shipped := counter(t, ship.metrics.shipDropped), counter(t, ship.metrics.shipped); dropped != 1 || shipped != 0 {
		t.Errorf("%v dropped and %v shipped, want 1 and 0", dropped, shipped)
	}
}
