package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// receivers starts the programs that are measured.
type receivers struct {
	listener string // path of our binary
	self     string // path of the bench: the references are in it
	netconsd string // path of the peer, empty for none
}

func newReceivers(ctx context.Context, s *scope) (*receivers, error) {
	listener, err := build(ctx, s, "lastgasp-listener", runtime.GOARCH)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return &receivers{listener, self, os.Getenv("PEER_NETCONSD")}, nil
}

// startAll starts ours, the limit and the peers. netconsd is left out if it is not built.
func (r *receivers) startAll(ctx context.Context, s *scope) (own *ours, limit *subject, peers []*subject, err error) {
	if own, err = r.startOurs(ctx, s); err != nil {
		return nil, nil, nil, err
	}
	if limit, err = r.startReference(ctx, s, doNothing, sockets()); err != nil {
		return nil, nil, nil, err
	}
	one, err := r.startReference(ctx, s, readOne, 1)
	if err != nil {
		return nil, nil, nil, err
	}
	peers = append(peers, one)
	if r.netconsd != "" {
		c, err := r.startNetconsd(ctx, s)
		if err != nil {
			return nil, nil, nil, err
		}
		peers = append(peers, c)
	}
	return own, limit, peers, nil
}

// ours is a running lastgasp-listener that writes what it finds into a folder.
type ours struct {
	*subject
	admin   netip.AddrPort
	records string
}

// startOurs starts the daemon with its defaults, which is everything: parse, keep lines, judge, count, record.
func (r *receivers) startOurs(ctx context.Context, s *scope) (*ours, error) {
	o := new(ours)
	var err error
	if o.admin, err = freePort(); err != nil {
		return nil, err
	}
	o.subject, err = start(ctx, s, "lastgasp-listener", sockets(), func(at netip.AddrPort, dir string) ([]string, error) {
		o.records = filepath.Join(dir, "records")
		config := filepath.Join(dir, "listener.yaml")
		text := fmt.Sprintf("listen: [%q]\nadmin: %q\nrecords: %s\n", at, o.admin, o.records)
		return []string{r.listener, "run", "--config", config}, os.WriteFile(config, []byte(text), 0o600)
	})
	if err != nil {
		return nil, err
	}
	return o, o.await(ctx, "be ready", func() (bool, error) {
		resp, err := http.Get("http://" + o.admin.String() + "/readyz")
		if err != nil {
			return false, nil // not yet
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK, nil
	})
}

// metrics are its counters now, labels included in the names.
func (o *ours) metrics() (map[string]float64, error) {
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Get("http://" + o.admin.String() + "/metrics")
	if err != nil {
		return nil, fmt.Errorf("ask the listener: %w", err)
	}
	defer resp.Body.Close()
	all := map[string]float64{}
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		if name, value, ok := cutLast(lines.Text(), " "); ok && !strings.HasPrefix(name, "#") {
			all[name], _ = strconv.ParseFloat(value, 64) // a comment's last word is not a number
		}
	}
	return all, nil
}

// tookAll returns an error if the daemon refused a datagram that it read: then a figure would not cover the whole path.
func (o *ours) tookAll() error {
	m, err := o.metrics()
	if err != nil {
		return err
	}
	for _, name := range []string{"refused", "over_quota", "malformed"} {
		if n := m["lastgasp_datagrams_"+name+"_total"]; n > 0 {
			return fmt.Errorf("the listener counts %.0f datagrams as %s", n, name)
		}
	}
	return nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// startReference starts one of our own references.
func (r *receivers) startReference(ctx context.Context, s *scope, name string, sockets int) (*subject, error) {
	return start(ctx, s, name, sockets, func(at netip.AddrPort, dir string) ([]string, error) {
		return []string{r.self, "-reference=" + name, at.String(), dir}, nil
	})
}

// netconsd is the peer's name.
const netconsd = "netconsd"

// startNetconsd starts the peer without output modules: it receives, parses, puts in order, and forgets.
func (r *receivers) startNetconsd(ctx context.Context, s *scope) (*subject, error) {
	return start(ctx, s, netconsd, 1, func(at netip.AddrPort, _ string) ([]string, error) {
		return []string{r.netconsd, "-a", at.Addr().String(), "-u", strconv.Itoa(int(at.Port()))}, nil
	})
}
