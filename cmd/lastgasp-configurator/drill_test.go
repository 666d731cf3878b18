package main

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/configurator"
	"github.com/lastgasp/lastgasp/configurator/canary"
	"github.com/lastgasp/lastgasp/configurator/enroll"
)

func TestAnnounceDrill(t *testing.T) {
	s := configurator.Status{Enrolment: &enroll.State{Enrolled: true, Node: "ip-10-0-0-7"}}
	s.Facts.Kernel, s.Facts.Panic = "6.12.1", 10
	proofs := []canary.Proof{{Listener: netip.MustParseAddrPort("10.0.2.10:6666"), Acked: true, RTT: 2300 * time.Microsecond}}
	var out bytes.Buffer
	if err := announceDrill(&out, "web-1", s, proofs); err != nil {
		t.Fatal(err)
	}
	want := `The kernel of web-1 (6.12.1) is about to panic. Everything that runs here dies with it.

  heard by 10.0.2.10:6666, acknowledged in 2.3ms
  pinned to Node ip-10-0-0-7: with act.at: pinned the listener acts at once
  kernel.panic is 10: the machine reboots 10 s later

Watch it from elsewhere:     lastgasp-listener deaths --watch
To move its pods away first: kubectl drain ip-10-0-0-7 --ignore-daemonsets --delete-emptydir-data
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	out.Reset()
	s.Enrolment, s.Facts.Panic = nil, 0
	if err := announceDrill(&out, "web-1", s, proofs); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"the cleanup waits for a witness", "stays dead until somebody resets it", "kubectl drain web-1 "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("lacks %q:\n%s", want, out.String())
		}
	}
}

func TestAsk(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"the name", "web-1\n", ""},
		{"the name without a newline", "web-1", ""},
		{"another name", "web-2\n", "that is not this machine's name; nothing was done"},
		{"yes is not enough", "yes\n", "that is not this machine's name; nothing was done"},
		{"nobody", "", "nobody answered; nothing was done"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := ""
			if err := ask(new(bytes.Buffer), strings.NewReader(tt.in), "web-1"); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}
