//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/e2e/lab"
)

// TestConfiguratorKeepsUp changes everything around a running watch, in one guest for each kernel.
func TestConfiguratorKeepsUp(t *testing.T) {
	for _, kernel := range []string{"6.1", "6.12", "7"} {
		t.Run(kernel, func(t *testing.T) {
			g := newGuest(t, kernel, lab.VMSpec{
				Modules: []string{"bonding", "bridge", "macvlan"},
				Sysctls: map[string]string{"kernel.panic": "0"},
				// A card that takes frames once a millisecond leaves an emulated CPU more time for the load.
				NIC: []string{"tx=timer", "x-txtimer=1000000"},
				Append: []string{
					"printk.devkmsg=on", // no limit to what is written there
					// Since 7.0 a kernel thread sends for netconsole, and in this machine the writer is faster than that thread.
					"log_buf_len=32M",
				},
			})
			a := newFakeListener(t, g.net, lab.ListenerAddr.Addr())
			b := newFakeListener(t, g.net, lab.APIServerAddr.Addr())
			reloadsLoseNothing(t, g, a, b)
			keepsUpWithTheNetwork(t, g, a)
		})
	}
}

// linesPerSecond is the load under which targets are replaced, if the guest can do as much.
const linesPerSecond = 10000

// reloadsLoseNothing replaces a's target by one for b, and fails to replace b's by one for a, while the kernel log fills
// at full speed. Every line must arrive at one of the two, or at both.
func reloadsLoseNothing(t *testing.T, g *guest, a, b *fakeListener) {
	// The emulated serial port is so slow that it would limit the load, not netconsole. From here on it is not a console.
	g.write(t, "/sys/class/tty/ttyS0/console", "N")
	g.run(t, 0, "apply", "--endpoint", a.String())

	t.Run("a reload under load loses no line", func(t *testing.T) {
		a.forget()
		b.forget()
		load := g.startLoad(t)
		a.awaitMore(t, 2000)
		g.run(t, 0, "apply", "--reload", "--endpoint", b.String())
		b.awaitMore(t, 2000)
		wrote := load.stop(t)
		heard := linesAt(t, wrote.lines, a, b)
		atA, atB := heard[0], heard[1]
		both := 0
		for n := range atB {
			if atA[n] {
				both++
			}
		}
		t.Logf("%s: %d only at the old listener, %d at both, %d only at the new", wrote, len(atA)-both, both, len(atB)-both)
		if both == 0 {
			t.Error("no line arrived at both: the old target went before the new one was heard")
		}
		wantLines(t, wrote.lines, atA, atB)
		g.wantTargets(t, "lastgasp-10.77.2.20-1")
	})
	t.Run("a reload that fails under load loses no line", func(t *testing.T) {
		a.setDeaf(true)
		defer a.setDeaf(false)
		a.forget()
		b.forget()
		load := g.startLoad(t)
		b.awaitMore(t, 2000)
		r := g.run(t, 1, "apply", "--reload", "--endpoint", a.String())
		if !strings.Contains(r.Stderr, a.String()+": not acknowledged") {
			t.Errorf("stderr: %s", r.Stderr)
		}
		b.awaitMore(t, 2000)
		wrote := load.stop(t)
		t.Log(wrote)
		wantLines(t, wrote.lines, linesAt(t, wrote.lines, b)...)
		g.wantTargets(t, "lastgasp-10.77.2.20-1")
	})
}

// kernelLoad is what writes lines in a guest.
type kernelLoad struct {
	g    *guest
	done chan kernelLog
}

// kernelLog is how much was written.
type kernelLog struct {
	lines   int
	seconds float64
	err     error
}

func (w kernelLog) String() string {
	return fmt.Sprintf("%d lines, %.0f a second", w.lines, float64(w.lines)/w.seconds)
}

const stopLoad = "/run/stop-load"

func (g *guest) startLoad(t *testing.T) kernelLoad {
	t.Helper()
	load := kernelLoad{g, make(chan kernelLog, 1)}
	go func() {
		var w kernelLog
		r, err := g.vm.Run(t.Context(), "load", fmt.Sprint(linesPerSecond), stopLoad)
		if err == nil {
			_, err = fmt.Sscan(r.Stdout, &w.lines, &w.seconds)
		}
		if w.err = err; err != nil {
			w.err = fmt.Errorf("%w: %s", err, r.Stderr)
		}
		load.done <- w
	}()
	return load
}

// stop ends the load and says what it was.
func (l kernelLoad) stop(t *testing.T) kernelLog {
	t.Helper()
	l.g.write(t, stopLoad, "")
	w := <-l.done
	if w.err != nil {
		t.Fatal(w.err)
	}
	if err := l.g.vm.Remove(t.Context(), stopLoad); err != nil {
		t.Fatal(err)
	}
	return w
}

// linesAt returns the numbers of the load's n lines that each listener has heard, once they hear no more: for two seconds if none is
// missing, else for twenty.
func linesAt(t *testing.T, n int, listeners ...*fakeListener) []map[int]bool {
	t.Helper()
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for quiet, before := 0, -1; ; <-again.C {
		count := 0
		var heard []map[int]bool
		for _, e := range listeners {
			records, _ := e.recall()
			count += len(records)
			heard = append(heard, loadLines(records))
		}
		if quiet++; count != before {
			quiet, before = 0, count
		}
		if quiet >= 20 || quiet >= 2 && missingLines(n, heard) == 0 {
			return heard
		}
	}
}

// missingLines is how many of the first n lines arrived nowhere.
func missingLines(n int, heard []map[int]bool) (missing int) {
	for line := range n {
		if !contained(line, heard) {
			missing++
		}
	}
	return missing
}

func loadLines(records []string) map[int]bool {
	heard := make(map[int]bool)
	for _, text := range records {
		var n int
		if _, err := fmt.Sscanf(text, "load %d", &n); err == nil {
			heard[n] = true
		}
	}
	return heard
}

// awaitMore waits until e has heard so many more records.
func (e *fakeListener) awaitMore(t *testing.T, more int) {
	t.Helper()
	want := e.count() + more
	eventually(t, "records", func() error {
		if got := e.count(); got < want {
			return fmt.Errorf("%s heard %d of %d", e, got, want)
		}
		return nil
	})
}

// wantLines fails the test if one of the first n lines arrived nowhere.
func wantLines(t *testing.T, n int, heard ...map[int]bool) {
	t.Helper()
	for line := range n {
		if !contained(line, heard) {
			t.Errorf("%d of %d lines arrived nowhere, the first is %d", missingLines(n, heard), n, line)
			return
		}
	}
}

func contained(line int, heard []map[int]bool) bool {
	for _, h := range heard {
		if h[line] {
			return true
		}
	}
	return false
}
