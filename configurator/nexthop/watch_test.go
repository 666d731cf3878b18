package nexthop

import (
	"context"
	"encoding/binary"
	"net/netip"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// message builds an rtnetlink message of a fixed part and attributes.
func message(kind uint16, fixed []byte, attrs ...*nl.RtAttr) syscall.NetlinkMessage {
	m := syscall.NetlinkMessage{Header: syscall.NlMsghdr{Type: kind}, Data: fixed}
	for _, a := range attrs {
		m.Data = append(m.Data, a.Serialize()...)
	}
	return m
}

func link(kind uint16, index, flags uint32, name string, hw mac, master uint32) syscall.NetlinkMessage {
	fixed := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(fixed[4:], index)
	binary.NativeEndian.PutUint32(fixed[8:], flags)
	attrs := []*nl.RtAttr{
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)),
		nl.NewRtAttr(unix.IFLA_ADDRESS, hw[:]),
	}
	if master != 0 {
		attrs = append(attrs, nl.NewRtAttr(unix.IFLA_MASTER, nl.Uint32Attr(master)))
	}
	return message(kind, fixed, attrs...)
}

func addr(kind uint16, index uint32, prefix string, flags uint32) syscall.NetlinkMessage {
	p := netip.MustParsePrefix(prefix)
	fixed := make([]byte, unix.SizeofIfAddrmsg)
	fixed[1], fixed[2] = byte(p.Bits()), byte(flags)
	binary.NativeEndian.PutUint32(fixed[4:], index)
	return message(kind, fixed,
		nl.NewRtAttr(unix.IFA_ADDRESS, p.Addr().AsSlice()), nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(flags)))
}

func neigh(kind uint16, index uint32, ip string, hw ...byte) syscall.NetlinkMessage {
	fixed := make([]byte, unix.SizeofNdMsg)
	fixed[0] = unix.AF_INET
	binary.NativeEndian.PutUint32(fixed[4:], index)
	attrs := []*nl.RtAttr{nl.NewRtAttr(unix.NDA_DST, netip.MustParseAddr(ip).AsSlice())}
	if len(hw) > 0 {
		attrs = append(attrs, nl.NewRtAttr(unix.NDA_LLADDR, hw))
	}
	return message(kind, fixed, attrs...)
}

func rt(kind uint16, table byte, flags uint32, prefix string) syscall.NetlinkMessage {
	fixed := make([]byte, unix.SizeofRtMsg)
	fixed[4] = table
	binary.NativeEndian.PutUint32(fixed[8:], flags)
	if prefix == "" {
		return message(kind, fixed)
	}
	p := netip.MustParsePrefix(prefix)
	fixed[1] = byte(p.Bits())
	return message(kind, fixed, nl.NewRtAttr(unix.RTA_DST, p.Addr().AsSlice()))
}

func TestLearn(t *testing.T) {
	const up = unix.IFF_UP | unix.IFF_LOWER_UP
	var (
		eth0     = link(unix.RTM_NEWLINK, 2, up, "eth0", ownMAC, 0)
		address  = addr(unix.RTM_NEWADDR, 2, "10.0.0.5/24", 0)
		gateway  = neigh(unix.RTM_NEWNEIGH, 2, "10.0.0.1", hopMAC[:]...)
		newOther = []byte{2, 0, 0, 0, 0, 9}
	)
	tests := []struct {
		name   string
		before []syscall.NetlinkMessage
		event  syscall.NetlinkMessage
		want   string
	}{
		{name: "a new device", event: eth0, want: "device eth0 appeared"},
		{name: "a device told again", before: []syscall.NetlinkMessage{eth0}, event: eth0},
		{
			name:   "flags that do not matter",
			before: []syscall.NetlinkMessage{eth0},
			event:  link(unix.RTM_NEWLINK, 2, up|unix.IFF_PROMISC, "eth0", ownMAC, 0),
		},
		{
			name:   "carrier lost",
			before: []syscall.NetlinkMessage{eth0},
			event:  link(unix.RTM_NEWLINK, 2, unix.IFF_UP, "eth0", ownMAC, 0),
			want:   "device eth0 has no carrier",
		},
		{
			name:   "down",
			before: []syscall.NetlinkMessage{eth0},
			event:  link(unix.RTM_NEWLINK, 2, 0, "eth0", ownMAC, 0),
			want:   "device eth0 went down",
		},
		{
			name:   "up again",
			before: []syscall.NetlinkMessage{link(unix.RTM_NEWLINK, 2, 0, "eth0", ownMAC, 0)},
			event:  eth0,
			want:   "device eth0 is up",
		},
		{
			name:   "renamed",
			before: []syscall.NetlinkMessage{eth0},
			event:  link(unix.RTM_NEWLINK, 2, up, "ens5", ownMAC, 0),
			want:   "device eth0 is now called ens5",
		},
		{
			name:   "enslaved",
			before: []syscall.NetlinkMessage{eth0},
			event:  link(unix.RTM_NEWLINK, 2, up, "eth0", ownMAC, 7),
			want:   "device eth0 changed its master",
		},
		{
			name:   "another Ethernet address",
			before: []syscall.NetlinkMessage{eth0},
			event:  link(unix.RTM_NEWLINK, 2, up, "eth0", hopMAC, 0),
			want:   "device eth0 changed its Ethernet address from 02:00:00:00:00:05 to 02:00:00:00:00:01",
		},
		{
			name:   "removed",
			before: []syscall.NetlinkMessage{eth0},
			event:  link(unix.RTM_DELLINK, 2, 0, "eth0", ownMAC, 0),
			want:   "device eth0 is gone",
		},
		{
			name:   "removed and created anew",
			before: []syscall.NetlinkMessage{eth0, link(unix.RTM_DELLINK, 2, 0, "eth0", ownMAC, 0)},
			event:  eth0,
			want:   "device eth0 appeared",
		},
		{name: "a new address", before: []syscall.NetlinkMessage{eth0}, event: address, want: "address 10.0.0.5/24 added to eth0"},
		{name: "a lease renewed", before: []syscall.NetlinkMessage{eth0, address}, event: address},
		{name: "an address still being checked", event: addr(unix.RTM_NEWADDR, 2, "2001:db8::5/64", unix.IFA_F_TENTATIVE)},
		{
			name:   "an address found free",
			before: []syscall.NetlinkMessage{addr(unix.RTM_NEWADDR, 2, "2001:db8::5/64", unix.IFA_F_TENTATIVE)},
			event:  addr(unix.RTM_NEWADDR, 2, "2001:db8::5/64", unix.IFA_F_PERMANENT),
			want:   "address 2001:db8::5/64 added to device 2",
		},
		{
			name:   "an address removed",
			before: []syscall.NetlinkMessage{eth0, address},
			event:  addr(unix.RTM_DELADDR, 2, "10.0.0.5/24", 0),
			want:   "address 10.0.0.5/24 removed from eth0",
		},
		{name: "a neighbour met for the first time", event: gateway},
		{name: "a neighbour confirmed", before: []syscall.NetlinkMessage{gateway}, event: gateway},
		{name: "a neighbour being looked for", before: []syscall.NetlinkMessage{gateway}, event: neigh(unix.RTM_NEWNEIGH, 2, "10.0.0.1")},
		{
			name:   "a neighbour moved",
			before: []syscall.NetlinkMessage{eth0, gateway},
			event:  neigh(unix.RTM_NEWNEIGH, 2, "10.0.0.1", newOther...),
			want:   "neighbour 10.0.0.1 on eth0 moved from 02:00:00:00:00:01 to 02:00:00:00:00:09",
		},
		{
			name:   "a neighbour that failed, was collected and came back elsewhere",
			before: []syscall.NetlinkMessage{gateway, neigh(unix.RTM_NEWNEIGH, 2, "10.0.0.1"), neigh(unix.RTM_DELNEIGH, 2, "10.0.0.1")},
			event:  neigh(unix.RTM_NEWNEIGH, 2, "10.0.0.1", newOther...),
			want:   "neighbour 10.0.0.1 on device 2 moved from 02:00:00:00:00:01 to 02:00:00:00:00:09",
		},
		{
			name:   "the same neighbour on another device",
			before: []syscall.NetlinkMessage{gateway},
			event:  neigh(unix.RTM_NEWNEIGH, 3, "10.0.0.1", newOther...),
		},
		{name: "a route", event: rt(unix.RTM_NEWROUTE, unix.RT_TABLE_MAIN, 0, "10.9.0.0/16"), want: "route 10.9.0.0/16 added"},
		{name: "the default route lost", event: rt(unix.RTM_DELROUTE, unix.RT_TABLE_MAIN, 0, ""), want: "route default removed"},
		{name: "the local table", event: rt(unix.RTM_NEWROUTE, unix.RT_TABLE_LOCAL, 0, "10.0.0.5/32")},
		{name: "a cached route", event: rt(unix.RTM_NEWROUTE, unix.RT_TABLE_MAIN, unix.RTM_F_CLONED, "10.9.0.1/32")},
		{name: "a rule", event: message(unix.RTM_NEWRULE, nil), want: "routing rules changed"},
		{name: "a nexthop object", event: message(unix.RTM_DELNEXTHOP, nil), want: "nexthop objects changed"},
		{name: "something else", event: message(unix.RTM_NEWQDISC, nil)},
		{name: "cut off", event: message(unix.RTM_NEWLINK, make([]byte, 4))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := newKnown()
			for _, m := range tt.before {
				k.learn(m)
			}
			if got := k.learn(tt.event); got != tt.want {
				t.Errorf("learn = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestGather(t *testing.T) {
	t.Run("what comes while nobody receives is one value", func(t *testing.T) {
		in, out := make(chan string), make(chan string)
		go gather(t.Context(), in, out)
		for _, r := range []string{"a", "b", "a", "c", "d", "e", "f", "g", "h", "i", "j"} {
			in <- r
		}
		close(in)
		var got []string
		for r := range out {
			got = append(got, r)
		}
		if diff := cmp.Diff([]string{"a; b; c; d; e; f; g; h; and 2 more"}, got); diff != "" {
			t.Errorf("reasons (-want +got):\n%s", diff)
		}
	})
	t.Run("each alone if somebody receives", func(t *testing.T) {
		in, out := make(chan string), make(chan string)
		go gather(t.Context(), in, out)
		for _, r := range []string{"a", "b"} {
			in <- r
			if got := <-out; got != r {
				t.Errorf("got %q, want %q", got, r)
			}
		}
		close(in)
		if r, ok := <-out; ok {
			t.Errorf("got %q after the end", r)
		}
	})
	t.Run("lost events are never summed up", func(t *testing.T) {
		var s summary
		for _, r := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", missed, missed} {
			s.add(r)
		}
		if got, want := s.text(), "a; b; c; d; e; f; g; h; missed events; and 1 more"; got != want {
			t.Errorf("text = %q, want %q", got, want)
		}
	})
	t.Run("the end of the context ends it", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		in, out := make(chan string), make(chan string)
		go gather(ctx, in, out)
		in <- "a"
		cancel()
		for range out { // "a" may or may not come first
		}
	})
}
