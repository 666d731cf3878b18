package listener

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/receive"
)

// Without a cluster nobody can be verified. One address makes up 20,000 deaths a second from ever new ports, and it is that
// of a node that was heard before. Every true death is on record nevertheless, that node's own included.
func TestMadeUpDeathsPushOutNone(t *testing.T) {
	const perSecond, seconds, keep = 20_000, 5, 200
	path := t.TempDir()
	d := NewDirectory(path, Keep{keep, time.Hour}, nil)
	d.now = func() time.Time { return epoch }
	sh := receive.NewShard(&receive.Config{Judge: &detect.Config{}, Sink: d, Metrics: new(receive.Metrics)})
	writing, stop := context.WithCancel(t.Context())
	stop() // so that Run ends when it has written what was offered
	at := epoch
	tick := func() {
		sh.Tick(at)
		if err := d.Run(writing); err != nil {
			t.Fatal(err)
		}
	}
	says := func(n int, text string) []byte {
		return fmt.Appendf(nil, "6.12.117,0,%d,%d,-;%s\n instance=i-%d\n boot=%08d\n gasp=%022d\n", at.Nanosecond(), at.Nanosecond()/1000, text, n, n, n)
	}
	const attacked = 3
	for n := range attacked + 1 {
		sh.Receive(at, node(n), says(n, "link becomes ready"))
	}
	at = at.Add(2 * time.Minute)
	for i := range perSecond * seconds {
		at = at.Add(time.Second / perSecond)
		from := netip.AddrPortFrom(node(attacked).Addr(), uint16(10000+i%50000))
		sh.Receive(at, from, says(1000+i, "Kernel panic - not syncing: forged"))
		if n := i - perSecond*seconds/2; n >= 0 && n <= attacked {
			sh.Receive(at, node(n), says(n, "Kernel panic - not syncing: Fatal exception"))
		}
		if i%(perSecond/10) == 0 {
			tick()
		}
	}
	for range 600 {
		at = at.Add(100 * time.Millisecond)
		tick()
	}
	files := store(t, path, Keep{keep, time.Hour})
	for n := range attacked + 1 {
		if len(about(files, n)) == 0 {
			t.Errorf("the death of node %d is not on record", n)
		}
	}
	if len(files) > keep {
		t.Errorf("%d files, want %d at most", len(files), keep)
	}
}
