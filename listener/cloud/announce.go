package cloud

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Announcer keeps this listener in the parameter in which nodes look up listeners, so that nodes find a listener that has
// moved. Each cluster has a parameter of its own, because its name is part of the parameter's.
//
// The parameter holds one announced listener for each availability zone. Each listener writes only its own zone's entry. It
// replaces another listener's entry once, when it starts or has moved: it takes over from its predecessor. After that it puts
// its entry back only if the zone has none: two writers at the same time have lost one (Parameter Store has no compare and
// swap), or somebody deleted it. If the zone has another entry by then, that is its successor's, and it is left alone. So
// replicas never fight, and of two in one zone the nodes know the one that started last. Nothing is ever removed: an entry of
// a dead listener costs nodes less than a list that is empty for a moment.
type Announcer struct {
	// Parameter is its name. {cluster}, {region} and {az-id} in it are filled in.
	Parameter string
	// Cluster is the name of the cluster whose nodes look it up.
	Cluster string
	// Address is host:port as nodes reach this listener. If the host is empty, it is the address this machine sends from.
	Address string
	// Zone is the id of the availability zone this listener is in. If it is empty, the metadata service is asked.
	Zone string

	Account *Account
	Log     *slog.Logger

	announced string // the address that has replaced the zone's former one, or was found there
	logged    string // the last line logged: a state is logged once
	failures  int
}

// The pace of announcing.
const (
	checkEvery = 5 * time.Minute  // whether the entry is still there, and right
	checkSoon  = 10 * time.Second // after a write: another listener may have written at the same time
	againMin   = 5 * time.Second  // after a failure, doubled each time
	againMax   = 5 * time.Minute

	turnTimeout = 30 * time.Second // for finding the account and two calls, each repeated by the SDK
)

// Run announces until ctx ends. It never fails: a listener that cannot announce itself hears all the same.
func (a *Announcer) Run(ctx context.Context) error {
	for {
		wait := a.turn(ctx)
		// Spread by half, so that replicas that started at once do not stay together.
		next := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-ctx.Done():
			next.Stop()
			return nil
		case <-next.C:
		}
	}
}

// turn looks once, writes if it has to, and returns when to look again.
func (a *Announcer) turn(ctx context.Context) (wait time.Duration) {
	calling, cancel := context.WithTimeout(ctx, turnTimeout)
	defer cancel()
	o, name, err := a.announce(calling)
	if ctx.Err() != nil {
		return againMin // the listener is ending, and that is why the turn failed
	}
	if err != nil {
		a.logOnce(slog.LevelError, "not announced", "err", err)
		wait = min(againMin<<min(a.failures, 10), againMax)
		a.failures++
		return wait
	}
	a.failures = 0
	switch o {
	case present:
		a.logOnce(slog.LevelInfo, "announced", "parameter", name, "address", a.announced, "zone", a.Zone)
	case superseded:
		a.logOnce(slog.LevelWarn, "another listener has taken over this zone's entry", "parameter", name, "address", a.announced, "zone", a.Zone)
	case written:
		a.logOnce(slog.LevelInfo, "announcing", "parameter", name, "address", a.announced, "zone", a.Zone)
		return checkSoon
	}
	return checkEvery
}

func (a *Announcer) logOnce(level slog.Level, message string, args ...any) {
	if line := message + fmt.Sprint(args...); line != a.logged {
		a.logged = line
		a.Log.Log(context.Background(), level, message, args...)
	}
}

// announce does the work of one turn. It returns the parameter's name for the log.
func (a *Announcer) announce(ctx context.Context) (o outcome, name string, err error) {
	account, err := a.Account.clients(ctx)
	if err != nil {
		return 0, "", err
	}
	own, err := a.entry(ctx)
	if err != nil {
		return 0, "", err
	}
	name, err = a.parameterName(account.region, own.Zone)
	if err != nil {
		return 0, "", err
	}
	text, exists, err := read(ctx, account.ssm, name)
	if err != nil {
		return 0, name, err
	}
	list, err := parseList(text)
	if err != nil {
		return 0, name, fmt.Errorf("%s does not hold a list of listeners (%w); correct or delete it", name, err)
	}
	list, o = place(list, own, own.Address != a.announced)
	if o == written {
		if err := write(ctx, account.ssm, name, format(list), exists); err != nil {
			return 0, name, err
		}
	}
	a.announced = own.Address
	return o, name, nil
}

func (a *Announcer) parameterName(region, zone string) (string, error) {
	if zone == "" && strings.Contains(a.Parameter, "{az-id}") {
		return "", errors.New("announce.ssm names {az-id}, and the zone is unknown; set announce.zone")
	}
	return strings.NewReplacer("{cluster}", a.Cluster, "{region}", region, "{az-id}", zone).Replace(a.Parameter), nil
}

// entry is this listener's entry in the list. An unknown zone is not a failure: the log shows that it is empty.
func (a *Announcer) entry(ctx context.Context) (entry, error) {
	host, port, err := net.SplitHostPort(a.Address)
	if err != nil {
		return entry{}, err
	}
	if host == "" {
		own, err := ownAddress()
		if err != nil {
			return entry{}, err
		}
		host = own.String()
	}
	if a.Zone == "" {
		a.Zone, _ = a.Account.zone(ctx)
	}
	return entry{Address: net.JoinHostPort(host, port), Zone: a.Zone}, nil
}

// ownAddress is the address this machine sends from: that of a pod or of the instance's primary interface.
func ownAddress() (netip.Addr, error) {
	// Every instance has a route to the metadata service. Connecting a UDP socket sends nothing.
	for _, towards := range []string{"169.254.169.254:80", "[fd00:ec2::254]:80"} {
		conn, err := net.Dial("udp", towards)
		if err != nil {
			continue
		}
		own := conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap()
		conn.Close()
		if own.IsGlobalUnicast() {
			return own, nil
		}
	}
	return netip.Addr{}, errors.New("find the address this machine sends from: no route to the metadata service; set announce.address")
}
