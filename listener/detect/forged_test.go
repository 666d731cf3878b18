package detect

import (
	"fmt"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// A kernel that sends no secret cannot be told from whoever shares its address and port and knows its uptime. Its death is
// emitted with the time of its own panic nonetheless, whatever was said before: the witness is about that time.
func TestForgedDeathsHideNoDeathWithoutASecret(t *testing.T) {
	for name, fields := range map[string][]netconsole.Field{"nothing": nil, "a boot": identity("boot-1", "")} {
		for _, wait := range []time.Duration{2 * time.Second, 5 * time.Second, 20 * time.Second, 59 * time.Second} {
			for _, chatter := range []time.Duration{0, 500 * time.Millisecond} {
				t.Run(fmt.Sprintf("a kernel that sends %s, %v later, chatter every %v", name, wait, chatter), func(t *testing.T) {
					g := newRig(&Config{})
					say := func(text string) {
						r := g.record(text)
						r.Fields = fields
						g.push(r)
					}
					say("Kernel panic - not syncing: forged")
					for end := g.now.Add(wait); g.now.Before(end); {
						if chatter == 0 {
							g.wait(wait)
							break
						}
						g.wait(chatter)
						say("still here")
					}
					died := g.now
					say(panicLine)
					g.wait(time.Minute)
					for _, inc := range g.incidents {
						if inc.Verdict == Dying && inc.Time.Equal(died) {
							return
						}
					}
					t.Errorf("no death at +%v: %q", died.Sub(start), g.emitted)
				})
			}
		}
	}
}
