package configurator

import (
	"encoding/json"
	"flag"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/configurator/configfs"
	"github.com/lastgasp/lastgasp/configurator/machine"
)

var update = flag.Bool("update", false, "write testdata/status-*.txt anew")

// statusCase is a node and how it stands.
type statusCase struct {
	name     string // of testdata/status-NAME.txt
	facts    machine.Facts
	present  []configfs.State
	settings []machine.Setting
	last     *machine.State
	verdict  Verdict
	links    map[string]string
}

// up is the uptime of someTime.
const up = 100 * time.Hour

func statusCases() []statusCase {
	one := armed(specTo(listenerA, gatewayMAC), "lastgasp-10.0.2.10-1", 6665)
	two := armed(specTo(listenerB, gatewayMAC), "lastgasp-10.0.3.10-1", 6665)
	acked := func(st configfs.State, d time.Duration) machine.TargetState {
		return machine.TargetState{Name: st.Name, Listener: st.Remote(), Acked: true, Known: true,
			LastAck: at(-d), LastAckUptime: up - d, RTT: 9_140 * time.Microsecond}
	}
	last := func(targets ...machine.TargetState) *machine.State {
		return &machine.State{Time: at(-90 * time.Second), Uptime: up - 90*time.Second, Interval: 10 * time.Minute, Version: "v0", Identity: someone,
			Where: "ssm /lastgasp/eu-west-1/euw1-az1/endpoint version 3", Targets: targets}
	}
	nbcon := goodFacts
	nbcon.Kernel = "7.2.13+deb14-cloud-amd64"
	held := nbcon
	held.Panic = 0
	bare := one
	bare.Userdata = nil
	silent := acked(two, 0)
	silent.Acked, silent.Known, silent.LastAck, silent.LastAckUptime, silent.RTT, silent.Why = false, false, time.Time{}, 0, 0, "no acknowledgement of 3 canaries within 9s"
	unregistered := acked(two, time.Minute)
	unregistered.Known = false
	elsewhere := one
	elsewhere.RemoteMAC = net.HardwareAddr{2, 0, 0, 0, 0, 0x77}
	withMAC := acked(one, time.Minute)
	withMAC.MAC = one.RemoteMAC.String()
	onLink := acked(one, time.Minute)
	onLink.OnLink = true
	failed := last(acked(one, time.Minute))
	failed.Failed = "listener 10.0.3.10:6666: reach 10.0.3.10: no route"
	failed.Passed = []string{"ssm: throttled: Rate exceeded"}
	failed.Where = "last known good since 2026-11-21T20:00:00Z, from ssm /lastgasp/endpoint version 2"
	refusedPass := last()
	refusedPass.Failed = "listener 10.0.2.10:6666: reach 10.0.2.10: device cannot be used: tap0 hands its packets to a process"
	off := func(st configfs.State) configfs.State { st.Enabled = false; return st }
	second := two
	second.Device = "eth1"
	return []statusCase{
		{"covered", goodFacts, []configfs.State{one, two}, nil, last(acked(one, 90*time.Second), acked(two, 90*time.Second)), Covered, nil},
		{"mute-kernel", nbcon, []configfs.State{one}, nil, last(acked(one, 90*time.Second)), Mute, nil},
		{"held", held, []configfs.State{one}, []machine.Setting{{File: panicFile, Was: "10", Set: "0"}}, last(acked(one, 90*time.Second)), Covered, nil},
		{"one-silent", goodFacts, []configfs.State{one, two}, nil, last(acked(one, 90*time.Second), silent), Unproven, nil},
		{"all-silent", goodFacts, []configfs.State{two}, nil, last(silent), Unproven, nil},
		{"nothing-armed", goodFacts, nil, nil, nil, Mute, nil},
		{"nothing-armed-after-a-failure", goodFacts, nil, nil, refusedPass, Mute, nil},
		{"no-watch", goodFacts, []configfs.State{one}, nil, last(acked(one, 50*time.Hour)), Unproven, nil},
		{"last-ack-still-counts", goodFacts, []configfs.State{one}, nil, last(acked(one, 3*DefaultConfig().Canary.Interval)), Covered, nil},
		{"stranger", goodFacts, []configfs.State{one, two}, nil, last(acked(one, time.Minute), unregistered), Stranger, nil},
		{"wanted-but-gone", goodFacts, []configfs.State{one}, nil, last(acked(one, time.Minute), acked(two, time.Minute)), Unproven, nil},
		{"on-link", goodFacts, []configfs.State{one}, nil, last(onLink), Covered, nil},
		{"old-kernel", goodFacts, []configfs.State{bare}, nil, last(acked(one, time.Minute)), Covered, nil},
		{"changed-by-somebody", goodFacts, []configfs.State{elsewhere}, nil, last(withMAC), Unproven, nil},
		{"last-pass-failed", goodFacts, []configfs.State{one}, nil, failed, Unproven, nil},
		{"all-disabled", goodFacts, []configfs.State{off(one), off(two)}, nil, last(acked(one, time.Minute), acked(two, time.Minute)), Mute, nil},
		{"no-carrier", goodFacts, []configfs.State{one, two}, nil, last(acked(one, time.Minute), acked(two, time.Minute)), Mute,
			map[string]string{"ens5": "has no carrier"}},
		{"one-of-two-devices-down", goodFacts, []configfs.State{one, second}, nil, last(acked(one, time.Minute), acked(second, time.Minute)), Unproven,
			map[string]string{"eth1": "is down"}},
	}
}

func TestStatus(t *testing.T) {
	for _, tt := range statusCases() {
		t.Run(tt.name, func(t *testing.T) {
			s := newStatus(up, tt.facts, tt.present, tt.links, tt.settings, tt.last)
			if s.Verdict != tt.verdict {
				t.Errorf("verdict %s, want %s", s.Verdict, tt.verdict)
			}
			var b strings.Builder
			if err := s.WriteText(&b, up); err != nil {
				t.Fatal(err)
			}
			file := "testdata/status-" + tt.name + ".txt"
			if *update {
				if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), b.String()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", file, diff)
			}
			if lines := strings.Count(b.String(), "\n"); lines > 24 {
				t.Errorf("%d lines are no screen", lines)
			}
			shown, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			if secret := "c2VjcmV0"; strings.Contains(b.String()+string(shown), secret) {
				t.Error("it shows the secret of this boot")
			}
		})
	}
}
