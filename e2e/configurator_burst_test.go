//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/lastgasp/lastgasp/e2e/lab"
)

const byteQueueLimits = "/sys/class/net/eth0/queues/tx-0/byte_queue_limits/"

// TestPanicBehindSlowHardware panics kernels whose virtio_net has byte queue limits, behind a card that takes frames only every
// 400 ms, longer than netpoll waits for one on any machine. With the limit that the quiet time before has left, only the first frames arrive;
// with the room that apply gives the queue, everything does.
func TestPanicBehindSlowHardware(t *testing.T) {
	for _, tt := range []struct {
		name, kernel string
		raised       bool
	}{
		{"6.12 as it was", "6.12", false},
		{"6.12 raised", "6.12", true},
		{"7 as it was", "7", false},
		{"7 raised", "7", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k, err := lab.FetchKernel(t.Context(), t, tt.kernel)
			if err != nil {
				t.Fatal(err)
			}
			module, err := lab.BuildCrashModule(t.Context(), t, k)
			if err != nil {
				t.Fatal(err)
			}
			g := newGuest(t, tt.kernel, lab.VMSpec{
				CrashModule: module,
				Sysctls:     map[string]string{"kernel.panic": "0", "kernel.panic_on_oops": "1"},
				NIC:         []string{"tx=timer", "x-txtimer=400000000"},
			})
			a := newFakeListener(t, g.net, lab.ListenerAddr.Addr())
			g.run(t, 0, "apply", "--endpoint", a.String())
			if !tt.raised {
				g.write(t, byteQueueLimits+"limit_min", "0")
				g.write(t, byteQueueLimits+"limit", "0")
				g.run(t, 0, "verify") // with its canary the kernel finds its own limit again
			}
			limit := g.read(t, byteQueueLimits+"limit")
			a.forget()
			if err := g.vm.Crash(t.Context(), lab.CrashNullDeref); err != nil {
				t.Fatal(err)
			}
			const end = "---[ end Kernel panic"
			g.awaitSerial(t, end)
			whole := func() error {
				if records, _ := a.recall(); len(records) == 0 || !strings.HasPrefix(records[len(records)-1], end) {
					return fmt.Errorf("the panic's end is missing after %q", records)
				}
				return nil
			}
			if tt.raised {
				eventually(t, "the whole panic", whole)
			} else if a.awaitQuiet(t); whole() == nil {
				t.Error("all of it arrived: there is no reason to raise the limit")
			}
			records, size := a.recall()
			t.Logf("limit %s bytes: %d records in %d bytes arrived", limit, len(records), size)
		})
	}
}

// wantQueueRoom checks that the queue has room for a panic, and that status says so, or that it is as the kernel made it.
func (g *guest) wantQueueRoom(t *testing.T, raised bool) {
	t.Helper()
	want := "0"
	if raised {
		want = "262144"
	}
	if got := g.read(t, byteQueueLimits+"limit_min"); got != want {
		t.Errorf("limit_min is %s, want %s", got, want)
	}
	listed := false
	for _, s := range g.status(t).ChangedSettings {
		listed = listed || "/"+s.File == byteQueueLimits+"limit_min" && s.Was == "0" && s.Set == want
	}
	if listed != raised {
		t.Errorf("status lists it as changed: %t, want %t", listed, raised)
	}
}

// awaitSerial waits until the guest's serial console has shown text.
func (g *guest) awaitSerial(t *testing.T, text string) {
	t.Helper()
	eventually(t, "the serial console", func() error {
		log, err := os.ReadFile(g.vm.Serial())
		if err == nil && !bytes.Contains(log, []byte(text)) {
			err = fmt.Errorf("it has not shown %q", text)
		}
		return err
	})
}
