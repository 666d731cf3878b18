package nexthop

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// missed is the reason given after events were lost: everything has to be looked at again.
const missed = "missed events"

// Watch sends, in words, what changes on this machine after it has returned and may alter a Hop: devices, addresses, routes,
// rules, nexthop objects, and neighbours that move. It filters out repetitions. While nobody receives, it gathers reasons
// into one value. A reason that begins with "missed events" means that everything has to be looked at again.
//
// The channel is closed when ctx ends, or after a last reason that says why the watch cannot continue.
func Watch(ctx context.Context) (<-chan string, error) {
	s, err := subscribe()
	if err != nil {
		return nil, fmt.Errorf("watch network: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { s.Close() }) // ends every read below
	w := watcher{socket: s, buf: make([]byte, 64<<10)}
	if err := w.fill(); err != nil {
		stop()
		s.Close()
		return nil, fmt.Errorf("watch network: %w", err)
	}
	reasons, out := make(chan string), make(chan string)
	go func() {
		defer close(reasons)
		defer s.Close()
		defer stop()
		send := func(r string) {
			select {
			case reasons <- r:
			case <-ctx.Done():
			}
		}
		if err := w.sendChanges(send); ctx.Err() == nil {
			send(fmt.Sprintf("%s: watch network: %v", missed, err))
		}
	}()
	go gather(ctx, reasons, out)
	return out, nil
}

// watcher is one subscription to rtnetlink and what was learned from it.
type watcher struct {
	socket *os.File
	buf    []byte // for one datagram; the kernel makes them no larger than 32 KiB
	known  *known
}

// sendChanges reads events until the socket fails, and sends those that are changes.
func (w *watcher) sendChanges(send func(string)) error {
	for {
		messages, err := w.read()
		if errors.Is(err, unix.ENOBUFS) {
			if err := w.fill(); err != nil {
				return err
			}
			send(missed)
			continue
		}
		if err != nil {
			return err
		}
		for _, m := range messages {
			if reason := w.known.learn(m); reason != "" {
				send(reason)
			}
		}
	}
}

// fill learns the kernel's tables, without which a change cannot be recognised. If events overflow the socket meanwhile it
// starts again, up to ten times.
func (w *watcher) fill() error {
	for range 10 {
		w.known = newKnown()
		err := w.dump(unix.RTM_GETLINK, nl.NewIfInfomsg(unix.AF_UNSPEC))
		if err == nil {
			err = w.dump(unix.RTM_GETADDR, nl.NewIfAddrmsg(unix.AF_UNSPEC))
		}
		if err == nil {
			err = w.dump(unix.RTM_GETNEIGH, &netlink.Ndmsg{Family: unix.AF_UNSPEC})
		}
		if !errors.Is(err, unix.ENOBUFS) {
			return err
		}
	}
	return errors.New("read tables: events keep overflowing the socket")
}

// dump asks for one table and learns it, and the events that arrive in between. Each table has its own type of header: the
// kernel reads only the family, but logs a complaint about leftover bytes.
func (w *watcher) dump(table int, header nl.NetlinkRequestData) error {
	req := nl.NewNetlinkRequest(table, unix.NLM_F_DUMP)
	req.AddData(header)
	if _, err := w.socket.Write(req.Serialize()); err != nil {
		return fmt.Errorf("ask for table: %w", err)
	}
	var overflow error // the dump must be read to its end before the next may be requested
	for {
		messages, err := w.read()
		if errors.Is(err, unix.ENOBUFS) {
			overflow = err
			continue
		}
		if err != nil {
			return err
		}
		for _, m := range messages {
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				return overflow
			case unix.NLMSG_ERROR:
				return fmt.Errorf("read table: the kernel refuses message %d", table)
			}
			w.known.learn(m)
		}
	}
}

// read returns the messages of one datagram. A datagram that cannot be read counts as lost.
func (w *watcher) read() ([]syscall.NetlinkMessage, error) {
	n, err := w.socket.Read(w.buf)
	if err != nil {
		return nil, err
	}
	messages, err := syscall.ParseNetlinkMessage(w.buf[:n])
	if err != nil {
		return nil, unix.ENOBUFS
	}
	return messages, nil
}

// subscribe opens a socket that receives every event a Hop depends on.
func subscribe() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	s := os.NewFile(uintptr(fd), "netlink socket")
	var groups uint32
	for _, g := range []uint{
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE,
		unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV6_RULE,
		unix.RTNLGRP_NEXTHOP,
	} {
		groups |= 1 << (g - 1)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		s.Close()
		return nil, fmt.Errorf("subscribe to rtnetlink: %w", err)
	}
	return s, nil
}

// gather passes reasons from in to out, and joins those that arrive while nobody receives. It returns when in is closed and
// everything has been received, or when ctx ends.
func gather(ctx context.Context, in <-chan string, out chan<- string) {
	defer close(out)
	var pending summary
	for in != nil || pending.text() != "" {
		var ready chan<- string // nil, which is never ready, while nothing is pending
		if pending.text() != "" {
			ready = out
		}
		select {
		case r, ok := <-in:
			if !ok {
				in = nil
				continue
			}
			pending.add(r)
		case ready <- pending.text():
			pending = summary{}
		case <-ctx.Done():
			return
		}
	}
}

// spelled is how many reasons of a summary are given in full: a routing daemon can change thousands of routes at once.
const spelled = 8

// summary joins reasons into one text of bounded length.
type summary struct {
	reasons []string
	more    int
}

func (s *summary) add(reason string) {
	switch {
	case slices.Contains(s.reasons, reason):
	case len(s.reasons) < spelled || strings.HasPrefix(reason, missed):
		s.reasons = append(s.reasons, reason)
	default:
		s.more++
	}
}

func (s *summary) text() string {
	t := strings.Join(s.reasons, "; ")
	if s.more > 0 {
		t += fmt.Sprintf("; and %d more", s.more)
	}
	return t
}
