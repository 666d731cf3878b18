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

// Announcer keeps this listener in a parameter that nodes look listeners up in, so that moving the listener moves the
// fleet.
//
// The parameter holds one announced listener for each availability zone, and each listener writes its own zone's entry
// only. It replaces another one's once, when it starts or has moved: a listener takes over from its predecessor. After that
// it puts its entry back if the zone has none, which heals what two that wrote at once have lost (Parameter Store cannot
// compare and swap) and what somebody deleted; but if the zone has another one by now, that is its successor, and is left
// alone. So replicas never fight, and of two in one zone the nodes know the one that started last. Nothing is ever taken
// out: an entry of the dead costs nodes less than a list that is empty for a moment.
type Announcer struct {
	// Parameter is its name, in which {region} and {az-id} are filled in.
	Parameter string
	// Address is host:port as nodes reach this listener. If the host is empty, it is the address this machine sends from.
	Address string
	// Zone is the id of the availability zone this listener is in. If it is empty, the metadata service is asked.
	Zone string

	Account *Account
	Log     *slog.Logger

	announced string // the address that has replaced the zone's former one, or found itself there
	said      string // what was logged last: a state is worth a line when it begins
	failures  int
}

// The pace of announcing.
const (
	checkEvery = 5 * time.Minute  // whether the entry is still there, and right
	checkSoon  = 10 * time.Second // after writing, when a writer at the same time has written, too
	againMin   = 5 * time.Second  // after a failure, doubled each time
	againMax   = 5 * time.Minute

	turnTimeout = 30 * time.Second // for two calls, repeated by the SDK, and what has to be found out before
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

// turn looks once, writes if it has to, and says when to look again.
func (a *Announcer) turn(ctx context.Context) (wait time.Duration) {
	calling, cancel := context.WithTimeout(ctx, turnTimeout)
	defer cancel()
	o, name, err := a.announce(calling)
	if ctx.Err() != nil {
		return againMin // nobody waits for it any more, and what failed failed of that
	}
	if err != nil {
		a.tell(slog.LevelError, "not announced", "err", err)
		wait = min(againMin<<min(a.failures, 10), againMax)
		a.failures++
		return wait
	}
	a.failures = 0
	switch o {
	case present:
		a.tell(slog.LevelInfo, "announced", "parameter", name, "address", a.announced, "zone", a.Zone)
	case superseded:
		a.tell(slog.LevelWarn, "another listener has taken over this zone's place", "parameter", name, "address", a.announced, "zone", a.Zone)
	case written:
		a.tell(slog.LevelInfo, "announcing", "parameter", name, "address", a.announced, "zone", a.Zone)
		return checkSoon
	}
	return checkEvery
}

// tell logs what is not what was logged last.
func (a *Announcer) tell(level slog.Level, message string, args ...any) {
	if said := message + fmt.Sprint(args...); said != a.said {
		a.said = said
		a.Log.Log(context.Background(), level, message, args...)
	}
}

// announce does one turn's work. It returns the parameter's name for people.
func (a *Announcer) announce(ctx context.Context) (o outcome, name string, err error) {
	region, err := a.Account.Region(ctx)
	if err != nil {
		return 0, "", err
	}
	mine, err := a.mine(ctx)
	if err != nil {
		return 0, "", err
	}
	name, err = fill(a.Parameter, region, mine.Zone)
	if err != nil {
		return 0, "", err
	}
	store, err := a.Account.parameters(ctx, region)
	if err != nil {
		return 0, name, err
	}
	text, exists, err := read(ctx, store, name)
	if err != nil {
		return 0, name, err
	}
	list, err := parseList(text)
	if err != nil {
		return 0, name, fmt.Errorf("%s holds what is no list of listeners (%w); correct or delete it", name, err)
	}
	list, o = place(list, mine, mine.Address != a.announced)
	if o == written {
		if err := write(ctx, store, name, format(list), exists); err != nil {
			return 0, name, err
		}
	}
	a.announced = mine.Address
	return o, name, nil
}

// fill fills a parameter's name in.
func fill(name, region, zone string) (string, error) {
	if zone == "" && strings.Contains(name, "{az-id}") {
		return "", errors.New("announce.ssm names {az-id}, and the zone is unknown; set announce.zone")
	}
	return strings.NewReplacer("{region}", region, "{az-id}", zone).Replace(name), nil
}

// mine is what has to be in the list. Not to know the zone is no failure: the log shows that it is empty.
func (a *Announcer) mine(ctx context.Context) (entry, error) {
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
	// The metadata service's addresses are near to every instance. Connecting a UDP socket sends nothing.
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
	return netip.Addr{}, errors.New("find the address this machine sends from: there is none; set announce.address")
}
