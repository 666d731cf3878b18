package policy

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// TestDecide reads like DESIGN.md §4. Every case starts from a pinned gasp of a Ready node that was heard just now.
func TestDecide(t *testing.T) {
	heard := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	type story struct {
		Policy
		inc   detect.Incident
		v     View
		lease time.Duration // spec.leaseDurationSeconds
	}
	// watched lets d pass since the gasp, while the Lease was looked at every second and said what renewed says.
	watched := func(s *story, d time.Duration, renewed func(at time.Time) (time.Time, error)) {
		for at := heard; !at.After(heard.Add(d)); at = at.Add(time.Second) {
			r, err := renewed(at)
			s.v.Lease.Look(at, heard, r, s.lease, err)
			s.v.Now = at
		}
	}
	before := heard.Add(-4 * time.Second)
	silent := func(time.Time) (time.Time, error) { return before, nil }
	renewing := func(at time.Time) (time.Time, error) {
		if at.Before(heard.Add(6 * time.Second)) {
			return before, nil
		}
		return heard.Add(6 * time.Second), nil
	}
	failing := func(time.Time) (time.Time, error) { return time.Time{}, errors.New("connection refused") }
	missing := func(time.Time) (time.Time, error) { return time.Time{}, ErrNotFound }
	unpinned := func(s *story) { s.v.Node.Pin, s.v.First.Pin = Pin{}, Pin{} }
	old := func(s *story) { s.inc.Identity = netconsole.Identity{} } // a kernel before 6.9: no userdata

	for _, tt := range []struct {
		name     string
		story    func(s *story)
		want     Answer
		why      string // a part of the reason
		distrust bool
	}{
		// Authority.
		{name: "a pinned gasp is acted on at once", want: Act, why: "pinned authority"},
		{
			name: "text proves nothing", story: func(s *story) { s.inc.Authority = detect.Text },
			want: Refuse, why: "anybody could have sent", distrust: true,
		},
		{name: "the right boot without a pin waits for a second witness", story: unpinned, want: Wait, why: "boot authority"},
		{name: "a kernel without userdata waits for a second witness", story: old, want: Wait, why: "kernel authority"},
		{
			name:  "the right boot is acted on at once where policy says so",
			story: func(s *story) { unpinned(s); s.ActAt = detect.Boot },
			want:  Act, why: "boot authority",
		},
		{
			name:  "a forged gasp of a pinned boot is believed less than one of an unpinned boot",
			story: func(s *story) { s.inc.Identity.Secret = "guessed"; s.ActAt = detect.Boot },
			want:  Wait, why: "kernel authority",
		},
		{
			name:  "leaving the gasp out is no way around the pin",
			story: func(s *story) { s.inc.Identity.Secret = ""; s.ActAt = detect.Boot },
			want:  Wait, why: "kernel authority",
		},
		{
			name:  "the pin of an earlier boot pins nothing",
			story: func(s *story) { s.v.First.Pin.Boot = boot2; s.v.Node.Pin.Boot = boot2 },
			want:  Wait, why: "boot authority",
		},

		// Whose gasp it is.
		{
			name: "a gasp that no Node answers to", story: func(s *story) { s.v.Found, s.v.Node, s.v.First = ErrNotFound, Node{}, Node{} },
			want: Refuse, why: "no Node answers to instance i-1 with address 10.0.0.1",
		},
		{
			name: "a Node that was deleted meanwhile is not the sender's fault", story: func(s *story) { s.v.Found = ErrNotFound },
			want: Refuse, why: "node n1 is gone",
		},
		{
			name: "two Nodes with one address",
			story: func(s *story) {
				old(s)
				s.v.Found, s.v.Node, s.v.First = ErrAmbiguous, Node{}, Node{}
			},
			want: Refuse, why: "more than one Node answers to address 10.0.0.1",
		},
		{
			name:  "a look-up that is denied is not the sender's fault",
			story: func(s *story) { s.v.Found, s.v.Node, s.v.First = ErrDenied, Node{}, Node{} },
			want:  Refuse, why: "denied",
		},
		{
			name: "a control-plane node", story: func(s *story) { s.v.Node.ControlPlane = true },
			want: Refuse, why: "control plane",
		},
		{
			name: "a control-plane node where policy allows it", story: func(s *story) { s.v.Node.ControlPlane, s.ControlPlane = true, true },
			want: Act, why: "pinned",
		},

		// Boots.
		{
			name: "a replayed gasp of a boot that is over", story: func(s *story) { s.v.Node.BootID, s.v.First.BootID = boot2, boot2 },
			want: Refuse, why: "runs boot " + boot2, distrust: true,
		},
		{
			name: "a node that rebooted while a witness was waited for", story: func(s *story) { unpinned(s); s.v.Node.BootID = boot2 },
			want: Refuse, why: "has rebooted",
		},
		{
			name: "a node without userdata that rebooted meanwhile", story: func(s *story) { old(s); s.v.Node.BootID = boot2 },
			want: Refuse, why: "has rebooted",
		},
		{
			name: "a Node that was deleted and registered anew meanwhile", story: func(s *story) { s.v.Node.UID = "another" },
			want: Refuse, why: "registered anew",
		},

		// The second witness.
		{
			name:  "a Lease not renewed for the whole time is a witness",
			story: func(s *story) { unpinned(s); watched(s, 15*time.Second, silent) },
			want:  Act, why: "Lease of node n1 was not renewed for 13s",
		},
		{
			name:  "a Lease not renewed for a shorter time is none",
			story: func(s *story) { unpinned(s); watched(s, 14*time.Second, silent) },
			want:  Wait,
		},
		{
			name:  "a Lease renewed after the gasp contradicts it",
			story: func(s *story) { unpinned(s); watched(s, 7*time.Second, renewing) },
			want:  Refuse, why: "renewed its Lease 7s after the gasp", distrust: true,
		},
		{
			name: "a renewal that was under way during the panic contradicts nothing",
			story: func(s *story) {
				unpinned(s)
				watched(s, 15*time.Second, func(at time.Time) (time.Time, error) {
					if at.After(heard) {
						return heard.Add(-time.Millisecond), nil // arrived after the first look
					}
					return before, nil
				})
			},
			want: Act, why: "was not renewed",
		},
		{
			name: "a failed look-up is no witness", story: func(s *story) { unpinned(s); watched(s, time.Minute, failing) },
			want: Wait,
		},
		{
			name: "silence while the API server was away is no witness",
			story: func(s *story) {
				unpinned(s)
				watched(s, 40*time.Second, func(at time.Time) (time.Time, error) {
					if s := at.Sub(heard); s > 5*time.Second && s < 35*time.Second {
						return failing(at)
					}
					return before, nil
				})
			},
			want: Wait,
		},
		{
			name: "a Node without a Lease has no witness", story: func(s *story) { unpinned(s); watched(s, 15*time.Second, missing) },
			want: Refuse, why: "no second witness within 15s", distrust: true,
		},
		{
			name:  "a kubelet that the control plane has lost is a witness",
			story: func(s *story) { unpinned(s); s.v.Node.Ready, s.v.Node.Silent = false, true },
			want:  Act, why: "does not hear from node n1 any more",
		},
		{
			name:  "one lost before the gasp is none",
			story: func(s *story) { unpinned(s); s.v.Node.Ready, s.v.Node.Silent = false, true; s.v.First = s.v.Node },
			want:  Wait,
		},
		{
			name: "silence that had begun before the gasp is none",
			story: func(s *story) {
				unpinned(s)
				s.v.Node.Ready, s.v.Node.Silent = false, true
				s.v.First = s.v.Node
				watched(s, time.Minute, silent)
			},
			want: Refuse, why: "had lost it before", distrust: true,
		},
		{
			name: "nor can it take anything from a pinned gasp",
			story: func(s *story) {
				s.v.Node.Ready, s.v.Node.Silent = false, true
				s.v.First = s.v.Node
			},
			want: Act, why: "pinned",
		},
		{
			name:  "a Lease is no witness for a gasp without the secret that its boot has",
			story: func(s *story) { s.inc.Identity.Secret = ""; watched(s, 45*time.Second, silent) },
			want:  Wait, why: "has a secret, which the gasp lacks",
		},
		{
			name: "but a kubelet that the control plane has lost since is",
			story: func(s *story) {
				s.inc.Identity.Secret = ""
				watched(s, 45*time.Second, silent)
				s.v.Node.Ready, s.v.Node.Silent = false, true
			},
			want: Act, why: "does not hear from node n1 any more",
		},
		{
			name: "which a kubelet that did not say it was Ready cannot be seen to be",
			story: func(s *story) {
				s.inc.Identity.Secret = ""
				s.v.First.Ready = false
				watched(s, 45*time.Second, silent)
			},
			want: Refuse, why: "no witness but the Lease", distrust: true,
		},
		{
			name: "and so is a Lease where a fence is all that is left of the gasp",
			story: func(s *story) {
				s.inc.Identity, s.inc.Source = netconsole.Identity{}, netip.AddrPort{}
				watched(s, 15*time.Second, silent)
			},
			want: Act, why: "was not renewed",
		},
		{
			name:  "a kubelet that reports not to be Ready lives",
			story: func(s *story) { unpinned(s); s.v.Node.Ready = false },
			want:  Wait,
		},
		{
			name:  "a Lease of 120 s is renewed every 30 s, less often proves nothing",
			story: func(s *story) { unpinned(s); s.lease = 2 * time.Minute; watched(s, 33*time.Second, silent) },
			want:  Wait,
		},
		{
			name:  "a Lease of 120 s not renewed for longer is a witness",
			story: func(s *story) { unpinned(s); s.lease = 2 * time.Minute; watched(s, 34*time.Second, silent) },
			want:  Act, why: "Lease of node n1 was not renewed for 32s",
		},

		// Stale gasps and clocks.
		{
			name: "a pinned gasp handled late, of a node whose Lease went on",
			story: func(s *story) {
				s.v.Now = heard.Add(time.Minute)
				s.v.Lease.Look(s.v.Now, heard, heard.Add(55*time.Second), 40*time.Second, nil)
			},
			want: Wait,
		},
		{
			name: "a pinned gasp handled late, of a node whose Lease did not",
			story: func(s *story) {
				s.v.Now = heard.Add(time.Minute)
				s.v.Lease.Look(s.v.Now, heard, before, 40*time.Second, nil)
			},
			want: Act, why: "pinned",
		},
		{
			name: "a node whose clock is a minute ahead is not alive for that",
			story: func(s *story) {
				watched(s, 15*time.Second, func(time.Time) (time.Time, error) { return heard.Add(time.Minute), nil })
			},
			want: Act, why: "was not renewed",
		},

		// Distrust and breaker.
		{
			name: "a source that was contradicted", story: func(s *story) { s.v.Distrusted = true },
			want: Refuse, why: "source 10.0.0.1 was contradicted less than 10m0s ago",
		},
		{
			name: "too many nodes at once are held", story: func(s *story) { s.v.Room = false },
			want: Hold, why: "held: 5 nodes or 10% died within 10m0s already",
		},
		{
			name: "what a human released passes the breaker", story: func(s *story) { s.v.Room, s.v.Released = false, true },
			want: Act, why: "pinned",
		},
		{
			name: "a release is no witness", story: func(s *story) { unpinned(s); s.v.Room, s.v.Released = false, true },
			want: Wait,
		},
		{
			name: "an open breaker saves no forger", story: func(s *story) { s.v.Room = false; s.inc.Authority = detect.Text },
			want: Refuse, why: "anybody", distrust: true,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := Node{Name: "n1", UID: "uid-n1", BootID: boot1, Ready: true, Pin: Pin{Boot: boot1, Sum: gaspOf1.Sum()}}
			s := story{
				Policy: DefaultPolicy(),
				inc: detect.Incident{
					Source:   netip.MustParseAddrPort("10.0.0.1:6665"),
					Identity: netconsole.Identity{Instance: "i-1", Boot: boot1, Secret: gaspOf1},
					Time:     heard, Verdict: detect.Dying, Authority: detect.Kernel,
				},
				v:     View{Now: heard, Node: n, First: n, Room: true},
				lease: 40 * time.Second,
			}
			if tt.story != nil {
				tt.story(&s)
			}
			got := s.Decide(s.inc, s.v)
			if got.Answer != tt.want || !strings.Contains(got.Why, tt.why) || got.Distrust != tt.distrust {
				t.Errorf("got %s (distrust %v): %s; want %s (distrust %v): …%s…", got.Answer, got.Distrust, got.Why, tt.want, tt.distrust, tt.why)
			}
		})
	}
}
