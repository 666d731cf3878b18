package listener

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/policy"
)

func TestAnnounceConfig(t *testing.T) {
	for _, tt := range []struct {
		name, yaml string
		want       Announce
	}{
		{name: "off by default"},
		{name: "this machine's own address", yaml: "cluster: prod-1\nannounce: {ssm: '/lastgasp/{cluster}/endpoint'}",
			want: Announce{Parameter: "/lastgasp/{cluster}/endpoint", Address: ":6666"}},
		{name: "at the port of the first socket", yaml: "listen: ['127.0.0.1:6667', ':6666']\ncluster: prod-1\nannounce: {ssm: '/lastgasp/{cluster}/endpoint'}",
			want: Announce{Parameter: "/lastgasp/{cluster}/endpoint", Address: ":6667"}},
		{name: "at the socket's own address", yaml: "listen: ['[fd00::10]:6666']\ncluster: prod-1\nannounce: {ssm: '/lastgasp/{cluster}/endpoint'}",
			want: Announce{Parameter: "/lastgasp/{cluster}/endpoint", Address: "[fd00::10]:6666"}},
		{name: "as configured", yaml: "cluster: prod-1\nannounce: {ssm: '/org/{cluster}/{az-id}/endpoint', address: 'nlb.example.internal:6666', zone: euw1-az1}",
			want: Announce{Parameter: "/org/{cluster}/{az-id}/endpoint", Address: "nlb.example.internal:6666", Zone: "euw1-az1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := parseConfig("c.yaml", []byte(tt.yaml))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, c.Announce); diff != "" {
				t.Errorf("announce (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFateConfig(t *testing.T) {
	for text, want := range map[string]bool{"": false, "cloud: {}": false, "cloud: {fate: false}": false, "cloud: {fate: true}": true} {
		c, err := parseConfig("c.yaml", []byte(text))
		if err != nil || c.Fate != want {
			t.Errorf("%q: %t, %v; want %t", text, c.Fate, err, want)
		}
	}
}

func TestAfterPanicConfig(t *testing.T) {
	for text, want := range map[string]policy.AfterPanic{
		"":                             policy.LeaveInstance,
		"ec2: {}":                      policy.LeaveInstance,
		"ec2: {afterPanic: none}":      policy.LeaveInstance,
		"ec2: {afterPanic: reboot}":    policy.RebootInstance,
		"ec2: {afterPanic: terminate}": policy.TerminateInstance,
		"ec2: {afterPanic: unhealthy}": policy.UnhealthyInstance,
	} {
		c, err := parseConfig("c.yaml", []byte(text))
		if err != nil || c.Policy.AfterPanic != want {
			t.Errorf("%q: %q, %v; want %q", text, c.Policy.AfterPanic, err, want)
		}
	}
}
