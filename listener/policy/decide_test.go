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

const (
	secret1 = netconsole.Secret("secret of node 1")
	boot1   = "11111111-0000-4000-8000-000000000001"
	boot2   = "11111111-0000-4000-8000-000000000002"
)

// TestDecide reads like DESIGN.md §4. Every case starts from a pinned incident of a Ready node that was heard just now.
func TestDecide(t *testing.T) {
	heard := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	type story struct {
		Policy
		inc   detect.Incident
		v     View
		lease time.Duration // spec.leaseDurationSeconds
	}
	// watched lets d pass since the panic, while the Lease was looked at every second and said what renewed says.
	watched := func(s *story, d time.Duration, renewed func(at time.Time) (time.Time, error)) {
		for at := heard; !at.After(heard.Add(d)); at = at.Add(time.Second) {
			r, err := renewed(at)
			s.v.Lease.Look(at, heard, Renewal{At: r, Duration: s.lease, Version: r.String()}, err)
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
	lost := func(n *Node, since time.Duration) { n.Ready, n.Silent, n.SilentSince = false, true, heard.Add(since) }
	unpinned := func(s *story) { s.v.Node.Pin, s.v.First.Pin = Pin{}, Pin{} }
	claimed := func(s *story) {
		unpinned(s)
		s.v.First.Claim = Pin{boot1, secret1.Sum()}
		s.v.Node.Claim = s.v.First.Claim
	}
	says := func(s *story, secret netconsole.Secret) { s.v.Sum = secret.Sum() }
	old := func(s *story) { unpinned(s); s.inc.Identity = netconsole.Identity{}; says(s, "") } // before 6.9: no userdata
	read := func(s *story) { s.v.Heard, s.v.Sum = false, "" }                                  // from a NodeDeath, not heard

	for _, tt := range []struct {
		name     string
		story    func(s *story)
		want     Answer
		why      string // a part of the reason
		distrust bool
		fence    bool
	}{
		// Authority.
		{name: "a pinned secret is acted on at once", want: Act, why: "pinned authority", fence: true},
		{
			name: "text proves nothing", story: func(s *story) { s.inc.Authority = detect.Text },
			want: Refuse, why: "anybody could have sent", distrust: true,
		},
		{name: "the cloud's word waits for a witness, unfenced", story: func(s *story) { s.inc.Authority = detect.Cloud }, want: Wait, why: "cloud authority"},
		{
			name: "nor while the Lease says that it was renewed since the silent node died",
			story: func(s *story) {
				s.inc.Authority = detect.Cloud
				lost(&s.v.Node, -time.Minute)
				lost(&s.v.First, -time.Minute)
				watched(s, 5*time.Second, func(time.Time) (time.Time, error) { return heard.Add(8 * time.Second), nil })
			},
			want: Wait, why: "cloud authority",
		},
		{
			name: "the cloud's word is acted on once the node is silent, however long it has been",
			story: func(s *story) {
				s.inc.Authority = detect.Cloud
				lost(&s.v.Node, -time.Minute)
				lost(&s.v.First, -time.Minute)
			},
			want: Act, why: "cloud authority, and the control plane no longer hears", fence: true,
		},
		{
			name:  "a renewed Lease contradicts the cloud's word",
			story: func(s *story) { s.inc.Authority = detect.Cloud; watched(s, 20*time.Second, renewing) },
			want:  Refuse, why: "renewed its Lease", distrust: true,
		},
		{
			name: "a machine that does not run is a witness", story: func(s *story) { unpinned(s); s.v.Ended = "EC2 says: instance i-1 is terminated" },
			want: Act, why: "boot authority, and EC2 says: instance i-1 is terminated", fence: true,
		},
		{
			name:  "a machine that does not run contradicts no Lease that is renewed",
			story: func(s *story) { unpinned(s); s.v.Ended = "EC2 says"; watched(s, 20*time.Second, renewing) },
			want:  Refuse, why: "renewed its Lease", distrust: true,
		},
		{name: "a claimed secret waits for a witness", story: claimed, want: Wait, why: "claimed authority", fence: true},
		{name: "the right boot without a pin waits for a witness", story: unpinned, want: Wait, why: "boot authority", fence: true},
		{name: "a kernel without userdata waits for a witness", story: old, want: Wait, why: "kernel authority", fence: true},
		{
			name:  "the right boot is acted on at once where policy says so",
			story: func(s *story) { unpinned(s); s.ActAt = detect.Boot },
			want:  Act, why: "boot authority", fence: true,
		},
		{
			name: "a pinned secret waits for a witness where policy says so, fenced", story: func(s *story) { s.ActAt = Never },
			want: Wait, why: "pinned authority", fence: true,
		},
		{
			name:  "a wrong secret of a pinned boot is believed less than none of an unpinned boot",
			story: func(s *story) { says(s, "guessed"); s.ActAt = detect.Boot },
			want:  Wait, why: "kernel authority", fence: true,
		},
		{
			name:  "leaving the secret out is no way around the pin",
			story: func(s *story) { says(s, ""); s.ActAt = detect.Boot },
			want:  Wait, why: "kernel authority", fence: true,
		},
		{
			name:  "nor around a claim",
			story: func(s *story) { claimed(s); says(s, ""); s.ActAt = detect.Boot },
			want:  Wait, why: "kernel authority", fence: true,
		},
		{
			name: "a claim beside a pin counts for nothing",
			story: func(s *story) {
				s.v.First.Claim = Pin{boot1, netconsole.Secret("other").Sum()}
				says(s, "other")
				s.ActAt = detect.Boot
			},
			want: Wait, why: "kernel authority", fence: true,
		},
		{
			name:  "the pin of an earlier boot pins nothing",
			story: func(s *story) { s.v.First.Pin.Boot = boot2; s.v.Node.Pin.Boot = boot2 },
			want:  Wait, why: "boot authority", fence: true,
		},
		{name: "what was read and not heard waits for a witness", story: read, want: Wait, fence: true},
		{
			name: "whatever policy says", story: func(s *story) { read(s); s.ActAt = detect.Kernel }, want: Wait, fence: true,
		},

		// Whose kernel it is.
		{
			name: "a sender that no Node answers to", story: func(s *story) { s.v.Lookup, s.v.Node, s.v.First = NoNode, Node{}, Node{} },
			want: Refuse, why: "no Node answers to instance i-1 with address 10.0.0.1",
		},
		{
			name: "a Node that was deleted meanwhile is not the sender's fault", story: func(s *story) { s.v.Lookup = NoNode },
			want: Refuse, why: "node n1 is gone",
		},
		{
			name: "two Nodes with one address",
			story: func(s *story) {
				old(s)
				s.v.Lookup, s.v.Node, s.v.First = Ambiguous, Node{}, Node{}
			},
			want: Refuse, why: "more than one Node answers to address 10.0.0.1",
		},
		{
			name:  "a look-up that is denied is not the sender's fault",
			story: func(s *story) { s.v.Lookup, s.v.Node, s.v.First = Denied, Node{}, Node{} },
			want:  Refuse, why: "denies the look-up",
		},
		{
			name: "a control-plane node", story: func(s *story) { s.v.Node.ControlPlane = true },
			want: Record, why: "pinned authority; node n1 belongs to the control plane, so nothing follows",
		},
		{
			name: "a control-plane node that waits for its witness", story: func(s *story) { s.v.Node.ControlPlane = true; unpinned(s) },
			want: Wait, why: "waiting for a witness",
		},
		{
			name:  "a control-plane node that a witness contradicts",
			story: func(s *story) { s.v.Node.ControlPlane = true; watched(s, 20*time.Second, renewing) },
			want:  Refuse, why: "renewed its Lease", distrust: true,
		},
		{
			name:  "a node that is left out, when too many die: it takes no room",
			story: func(s *story) { s.v.Node.Labels, s.v.Room = map[string]string{ExcludeLabel: ""}, false },
			want:  Record, why: "pinned authority; node n1 is left out by its label " + ExcludeLabel + ", so nothing follows",
		},
		{
			name: "a control-plane node where policy allows it", story: func(s *story) { s.v.Node.ControlPlane, s.ControlPlane = true, true },
			want: Act, why: "pinned", fence: true,
		},

		// Boots.
		{
			name: "a boot that is over, of a node that has no such secret on record",
			story: func(s *story) {
				s.v.Node.BootID, s.v.First.BootID = boot2, boot2
				says(s, "guessed")
			},
			want: Refuse, why: "runs boot " + boot2, distrust: true,
		},
		{
			name: "a boot that is over, and whose secret was pinned, is recorded", story: func(s *story) { s.v.Node.BootID, s.v.First.BootID = boot2, boot2 },
			want: Record, why: "had this secret, and the node runs boot " + boot2 + " now",
		},
		{
			name: "a node that rebooted while a witness was awaited", story: func(s *story) { unpinned(s); s.v.Node.BootID = boot2 },
			want: Record, why: "has rebooted",
		},
		{
			name: "a node without userdata that rebooted meanwhile", story: func(s *story) { old(s); s.v.Node.BootID = boot2 },
			want: Record, why: "has rebooted",
		},
		{
			name: "a Node that was deleted and registered again meanwhile", story: func(s *story) { s.v.Node.UID = "another" },
			want: Refuse, why: "registered again",
		},
		{
			name: "a Node that was deleted after its death was decided on", story: func(s *story) { read(s); s.v.Proved, s.v.Lookup = true, NoNode },
			want: Record, why: "node n1 is gone, and its death had been decided on before",
		},
		{
			name:  "a Node that was registered again after that, on another boot",
			story: func(s *story) { read(s); s.v.Proved, s.v.Node.UID, s.v.Node.BootID = true, "another", boot2 },
			want:  Record, why: "has rebooted",
		},
		{
			name:  "a Node that was registered again after that, on the boot that was to be dead",
			story: func(s *story) { read(s); s.v.Proved, s.v.Node.UID = true, "another" },
			want:  Refuse, why: "registered again",
		},

		// The witness.
		{
			name:  "a Lease unchanged for its whole duration is a witness",
			story: func(s *story) { unpinned(s); watched(s, 42*time.Second, silent) },
			want:  Act, why: "Lease of node n1 was not renewed for 40s", fence: true,
		},
		{
			name:  "a Lease unchanged for a shorter time is none",
			story: func(s *story) { unpinned(s); watched(s, 41*time.Second, silent) },
			want:  Wait, fence: true,
		},
		{
			name:  "a kubelet that is 15 s late with its Lease lives",
			story: func(s *story) { old(s); watched(s, 25*time.Second, silent) },
			want:  Wait, fence: true,
		},
		{
			name:  "a Lease renewed after the panic contradicts it",
			story: func(s *story) { unpinned(s); watched(s, 7*time.Second, renewing) },
			want:  Refuse, why: "renewed its Lease 7s after the panic", distrust: true,
		},
		{
			name:  "also one that is pinned, where all wait",
			story: func(s *story) { s.ActAt = Never; watched(s, 7*time.Second, renewing) },
			want:  Refuse, why: "renewed its Lease 7s after the panic", distrust: true,
		},
		{
			name: "a renewal that was under way during the panic contradicts nothing",
			story: func(s *story) {
				unpinned(s)
				watched(s, 42*time.Second, func(at time.Time) (time.Time, error) {
					if at.After(heard) {
						return heard.Add(-time.Millisecond), nil // arrived after the first look
					}
					return before, nil
				})
			},
			want: Act, why: "was not renewed", fence: true,
		},
		{
			name:  "a failed look-up is no witness, and no reason to keep the fence for long",
			story: func(s *story) { unpinned(s); watched(s, 2*time.Minute, failing) },
			want:  Wait,
		},
		{
			name: "nobody waits for ever", story: func(s *story) { unpinned(s); watched(s, 11*time.Minute, failing) },
			want: Refuse, why: "its Lease could not be read",
		},
		{
			name: "silence while the API server was away is no witness",
			story: func(s *story) {
				unpinned(s)
				watched(s, 55*time.Second, func(at time.Time) (time.Time, error) {
					if s := at.Sub(heard); s > 5*time.Second && s < 35*time.Second {
						return failing(at)
					}
					return before, nil
				})
			},
			want: Wait, fence: true,
		},
		{
			name:  "a kubelet that the control plane has lost is a witness",
			story: func(s *story) { unpinned(s); watched(s, 13*time.Second, silent); lost(&s.v.Node, 11*time.Second) },
			want:  Act, why: "no longer hears from node n1", fence: true,
		},
		{
			name:  "also where the Lease may not be read",
			story: func(s *story) { unpinned(s); watched(s, 50*time.Second, failing); lost(&s.v.Node, 40*time.Second) },
			want:  Act, why: "no longer hears from node n1", fence: true,
		},
		{
			name: "also where it was judged late",
			story: func(s *story) {
				unpinned(s)
				watched(s, 13*time.Second, silent)
				lost(&s.v.Node, 11*time.Second)
				s.v.First = s.v.Node
			},
			want: Act, why: "no longer hears from node n1", fence: true,
		},
		{
			name:  "also where the control plane's clock is a minute behind ours",
			story: func(s *story) { unpinned(s); watched(s, 13*time.Second, silent); lost(&s.v.Node, -20*time.Second) },
			want:  Act, why: "no longer hears from node n1", fence: true,
		},
		{
			name:  "one that is called lost before its Lease can be overdue is none",
			story: func(s *story) { unpinned(s); watched(s, 12*time.Second, silent); lost(&s.v.Node, 4*time.Second) },
			want:  Wait, fence: true,
		},
		{
			name:  "nor before its Lease was looked at",
			story: func(s *story) { unpinned(s); lost(&s.v.Node, time.Second) },
			want:  Wait, fence: true,
		},
		{
			name: "nor when its Lease could not be read once",
			story: func(s *story) {
				unpinned(s)
				lost(&s.v.Node, 4*time.Second)
				watched(s, 8*time.Second, func(at time.Time) (time.Time, error) {
					if at.Equal(heard.Add(8 * time.Second)) {
						return failing(at)
					}
					return silent(at)
				})
			},
			want: Wait, fence: true,
		},
		{
			name:  "but it is where its Lease cannot be read at all",
			story: func(s *story) { unpinned(s); lost(&s.v.Node, 4*time.Second); watched(s, 8*time.Second, failing) },
			want:  Act, why: "no longer hears", fence: true,
		},
		{
			name:  "nor while its Lease is renewed",
			story: func(s *story) { unpinned(s); watched(s, 20*time.Second, renewing); lost(&s.v.Node, 4*time.Second) },
			want:  Refuse, why: "renewed its Lease", distrust: true,
		},
		{
			name: "nor where somebody has deleted its Lease",
			story: func(s *story) {
				unpinned(s)
				lost(&s.v.Node, 4*time.Second)
				for range 20 {
					s.v.Lease.Look(s.v.Now, heard, Renewal{Missing: true}, errors.New("not found"))
				}
			},
			want: Wait, fence: true,
		},
		{
			name: "but it is where the node died before its kubelet had made one",
			story: func(s *story) {
				unpinned(s)
				s.v.Node.Created = heard.Add(-20 * time.Second)
				lost(&s.v.Node, 4*time.Second)
				for range 20 {
					s.v.Lease.Look(s.v.Now, heard, Renewal{Missing: true}, errors.New("not found"))
				}
			},
			want: Act, why: "no longer hears", fence: true,
		},
		{
			name: "nor if the API server then does not answer",
			story: func(s *story) {
				unpinned(s)
				lost(&s.v.Node, 4*time.Second)
				for range 20 {
					s.v.Lease.Look(s.v.Now, heard, Renewal{Missing: true}, errors.New("not found"))
				}
				s.v.Lease.Look(s.v.Now, heard, Renewal{}, errors.New("timeout"))
			},
			want: Wait, fence: true,
		},
		{
			name: "nor where somebody has its Lease last for thirteen years",
			story: func(s *story) {
				unpinned(s)
				s.lease = 400_000_000 * time.Second
				watched(s, 8*time.Second, silent)
				lost(&s.v.Node, 4*time.Second)
			},
			want: Wait, fence: true,
		},
		{
			name: "and its early fence lasts no longer for that",
			story: func(s *story) {
				unpinned(s)
				s.lease = 400_000_000 * time.Second
				watched(s, 70*time.Second, silent)
			},
			want: Wait,
		},
		{
			name:  "a Lease that says that it lasts a second is none before two renewals are missing",
			story: func(s *story) { unpinned(s); s.lease = time.Second; watched(s, 22*time.Second, silent) },
			want:  Wait, fence: true,
		},
		{
			name:  "and then it is",
			story: func(s *story) { unpinned(s); s.lease = time.Second; watched(s, 23*time.Second, silent) },
			want:  Act, why: "Lease of node n1 was not renewed for 21s", fence: true,
		},
		{
			name: "a Lease that somebody sets back whenever it is renewed is none",
			story: func(s *story) {
				unpinned(s)
				for at := heard; !at.After(heard.Add(2 * time.Minute)); at = at.Add(time.Second) {
					renewals := at.Sub(heard).Truncate(10 * time.Second)
					s.v.Lease.Look(at, heard, Renewal{At: before, Duration: s.lease, Version: renewals.String()}, nil)
					s.v.Now = at
				}
			},
			want: Wait,
		},
		{
			name:  "one lost before the panic is none where the control plane's clock is ahead of ours",
			story: func(s *story) { unpinned(s); lost(&s.v.Node, 3*time.Second); s.v.First = s.v.Node },
			want:  Wait, fence: true,
		},
		{
			name:  "one lost before the panic is none",
			story: func(s *story) { unpinned(s); lost(&s.v.Node, -time.Minute); s.v.First = s.v.Node },
			want:  Wait, fence: true,
		},
		{
			name: "silence that had begun before the panic is none",
			story: func(s *story) {
				unpinned(s)
				lost(&s.v.Node, -time.Minute)
				s.v.First = s.v.Node
				watched(s, time.Minute, silent)
			},
			want: Refuse, why: "had lost it before", distrust: true,
		},
		{
			name: "but that of a death which was acted on before is its own",
			story: func(s *story) {
				read(s)
				s.v.Proved = true
				lost(&s.v.Node, -time.Minute)
				s.v.First = s.v.Node
				watched(s, 13*time.Second, silent)
			},
			want: Act, why: "no longer hears from node n1", fence: true,
		},
		{
			name: "unless its Lease is renewed",
			story: func(s *story) {
				read(s)
				s.v.Proved = true
				lost(&s.v.Node, -time.Minute)
				s.v.First = s.v.Node
				watched(s, 13*time.Second, renewing)
			},
			want: Refuse, why: "renewed its Lease", distrust: true,
		},
		{
			name:  "nor can it take anything from a pinned secret",
			story: func(s *story) { lost(&s.v.Node, -time.Minute); s.v.First = s.v.Node },
			want:  Act, why: "pinned", fence: true,
		},
		{
			name:  "a Lease is no witness without the secret that the boot has pinned",
			story: func(s *story) { says(s, ""); watched(s, 45*time.Second, silent) },
			want:  Wait, why: "this boot has pinned a secret, and the incident came without it", fence: true,
		},
		{
			name: "but is where the kernel cannot send the secret that the node has pinned",
			story: func(s *story) {
				old(s)
				s.v.Node.Kernel, s.v.Node.Pin = "6.1.0-37-cloud-amd64", Pin{boot1, secret1.Sum()}
				watched(s, 42*time.Second, silent)
			},
			want: Act, why: "was not renewed", fence: true,
		},
		{
			name: "but a kubelet that the control plane has lost since is",
			story: func(s *story) {
				says(s, "")
				watched(s, 45*time.Second, silent)
				lost(&s.v.Node, 40*time.Second)
			},
			want: Act, why: "no longer hears from node n1", fence: true,
		},
		{
			name:  "and so is a Lease where the death was read and not heard",
			story: func(s *story) { read(s); watched(s, 42*time.Second, silent) },
			want:  Act, why: "was not renewed", fence: true,
		},
		{
			name: "and where a fence is all that is left",
			story: func(s *story) {
				read(s)
				s.inc.Identity, s.inc.Source = netconsole.Identity{}, netip.AddrPort{}
				watched(s, 42*time.Second, silent)
			},
			want: Act, why: "was not renewed", fence: true,
		},
		{
			name:  "a kubelet that reports not to be Ready lives",
			story: func(s *story) { unpinned(s); s.v.Node.Ready = false },
			want:  Wait, fence: true,
		},
		{
			name:  "a Lease of 120 s unchanged for 119 s proves nothing",
			story: func(s *story) { unpinned(s); s.lease = 2 * time.Minute; watched(s, 121*time.Second, silent) },
			want:  Wait, fence: true,
		},
		{
			name:  "a Lease of 120 s unchanged for 120 s is a witness",
			story: func(s *story) { unpinned(s); s.lease = 2 * time.Minute; watched(s, 122*time.Second, silent) },
			want:  Act, why: "Lease of node n1 was not renewed for 2m0s", fence: true,
		},

		// Stale incidents and clocks.
		{
			name: "a pinned secret handled late, of a node whose Lease went on",
			story: func(s *story) {
				s.v.Now = heard.Add(time.Minute)
				s.v.Lease.Look(s.v.Now, heard, Renewal{At: heard.Add(55 * time.Second), Duration: 40 * time.Second}, nil)
			},
			want: Wait, fence: true,
		},
		{
			name: "a pinned secret handled late, of a node whose Lease did not",
			story: func(s *story) {
				s.v.Now = heard.Add(time.Minute)
				s.v.Lease.Look(s.v.Now, heard, Renewal{At: before, Duration: 40 * time.Second}, nil)
			},
			want: Act, why: "pinned", fence: true,
		},
		{
			name: "a node whose clock is a minute ahead is not alive for that",
			story: func(s *story) {
				watched(s, 42*time.Second, func(time.Time) (time.Time, error) { return heard.Add(time.Minute), nil })
			},
			want: Act, why: "was not renewed", fence: true,
		},

		// The early fence.
		{
			name:  "a node that renews, and whose witness is not complete, is fenced for a minute at most",
			story: func(s *story) { unpinned(s); s.v.Now = heard.Add(time.Minute) },
			want:  Wait,
		},
		{
			name: "counted from when it was judged first",
			story: func(s *story) {
				unpinned(s)
				s.v.Judged = heard.Add(time.Minute)
				s.v.Now = heard.Add(119 * time.Second)
			},
			want: Wait, fence: true,
		},
		{
			name:  "one whose kubelet is overdue stays fenced",
			story: func(s *story) { unpinned(s); s.lease = 10 * time.Minute; watched(s, 5*time.Minute, silent) },
			want:  Wait, fence: true,
		},
		{
			name:  "a source that was contradicted fences nothing, and is heard",
			story: func(s *story) { unpinned(s); s.v.Distrusted = true }, want: Wait, why: "boot authority",
		},
		{
			name:  "and judged by its witness",
			story: func(s *story) { unpinned(s); s.v.Distrusted = true; watched(s, 42*time.Second, silent) },
			want:  Act, why: "was not renewed", fence: true,
		},
		{
			name: "too many at once are not fenced early", story: func(s *story) { unpinned(s); s.v.Early = false }, want: Wait,
		},
		{
			name: "which takes nothing from a pinned secret", story: func(s *story) { s.v.Distrusted, s.v.Early = true, false },
			want: Act, why: "pinned", fence: true,
		},

		// Breaker.
		{
			name: "too many nodes at once are held", story: func(s *story) { s.v.Room = false },
			want: Hold, why: "held: the limit is 5 nodes or 10% of all within 10m0s", fence: true,
		},
		{
			name: "what a human released passes the breaker", story: func(s *story) { s.v.Room, s.v.Released = false, true },
			want: Act, why: "pinned", fence: true,
		},
		{
			name: "a release is no witness", story: func(s *story) { unpinned(s); s.v.Room, s.v.Released = false, true },
			want: Wait, fence: true,
		},
		{
			name: "an open breaker saves no forger", story: func(s *story) { s.v.Room = false; s.inc.Authority = detect.Text },
			want: Refuse, why: "anybody", distrust: true,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := Node{Name: "n1", UID: "uid-n1", BootID: boot1, Ready: true, Pin: Pin{Boot: boot1, Sum: secret1.Sum()}}
			s := story{
				Policy: DefaultPolicy(),
				inc: detect.Incident{
					Source:   netip.MustParseAddrPort("10.0.0.1:6665"),
					Identity: netconsole.Identity{Instance: "i-1", Boot: boot1, Secret: secret1},
					Time:     heard, Verdict: detect.Dying, Authority: detect.Kernel,
				},
				v: View{
					Now: heard, Node: n, First: n, Judged: heard, Heard: true, Sum: secret1.Sum(), Early: true, Room: true,
				},
				lease: 40 * time.Second,
			}
			if tt.story != nil {
				tt.story(&s)
			}
			got := s.Decide(s.inc, s.v)
			if got.Answer != tt.want || !strings.Contains(got.Why, tt.why) || got.Distrust != tt.distrust || got.Fence != tt.fence {
				t.Errorf("got %s (distrust %v, fence %v): %s; want %s (distrust %v, fence %v): …%s…",
					got.Answer, got.Distrust, got.Fence, got.Why, tt.want, tt.distrust, tt.fence, tt.why)
			}
		})
	}
}
