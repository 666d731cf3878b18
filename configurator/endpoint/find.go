package endpoint

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// Errors a caller branches on.
var (
	// ErrAbsent means that a Source answered, and names no listener.
	ErrAbsent = errors.New("names no listener")
	// ErrNotFound means that no source named a listener, not even the last known good list.
	ErrNotFound = errors.New("no listener endpoint found")
	// ErrOutside means that a source names only listeners that Finder.Within refuses.
	ErrOutside = errors.New("names only listeners outside of endpoint.within")
	// ErrThrottled means that SSM asks the fleet to slow down.
	ErrThrottled = errors.New("throttled")
)

// Source is one place where listeners may be written down.
type Source interface {
	// Find asks the source. Besides the list it returns where exactly it found it, for people: "ssm /lastgasp/endpoint
	// version 3". ErrAbsent means that there is nothing there, any other error that the source could not be asked.
	Find(ctx context.Context) (list []Endpoint, where string, err error)
}

// Found is what a Finder found.
type Found struct {
	Endpoints []Endpoint // addresses only: names are looked up
	Where     string     // which source won
	Stale     bool       // it was the last known good list: ask again before long
	// Passed says, one sentence each, why sources of higher rank were passed over.
	Passed []string
	// Throttled means that SSM was among them because it asks the fleet to slow down.
	Throttled bool
}

// Finder asks its sources in order; the first that names a listener wins.
type Finder struct {
	Sources []Source
	// Lookup resolves a host name, zones included: see Resolver.
	Lookup func(ctx context.Context, e Endpoint) ([]Endpoint, error)
	// Within reports whether a listener may be used, whichever source names it. Nil means any.
	Within func(Endpoint) bool
	// Last is asked when all sources fail. Nil means never.
	Last *LastGood
}

// Find returns the listeners as addresses. A source that fails is passed over, and Found.Passed says why. If none is left the
// error is ErrNotFound with the same sentences.
//
// If a source cannot be asked and the last known good list came from it, that list wins over sources of lower rank: a
// Parameter Store that throttles for a minute must not move nodes. The same holds if the source names only listeners that Within
// refuses: write access to a source must not be enough to disarm nodes.
func (f *Finder) Find(ctx context.Context) (Found, error) {
	var found Found
	var unanswered []string // kinds of sources that could not be asked
	for _, s := range f.Sources {
		list, where, err := s.Find(ctx)
		if err == nil {
			list, err = f.addresses(ctx, list)
		}
		if err == nil {
			list, err = f.allowed(list, &found)
		}
		if err == nil {
			if last, ok := f.lastFrom(unanswered); ok {
				if list, err := f.allowed(last.Endpoints, &found); err == nil {
					found.Endpoints, found.Where, found.Stale = list, last.where(), true
					return found, nil
				}
			}
			found.Endpoints, found.Where = list, where
			return found, nil
		}
		if !errors.Is(err, ErrAbsent) {
			unanswered = append(unanswered, kindOf(where))
		}
		if where != "" {
			err = fmt.Errorf("%s: %w", where, err)
		}
		found.Throttled = found.Throttled || errors.Is(err, ErrThrottled)
		found.Passed = append(found.Passed, err.Error())
	}
	if f.Last != nil {
		list, where, err := f.Last.Find(ctx)
		if err == nil {
			list, err = f.allowed(list, &found)
		}
		if err == nil {
			found.Endpoints, found.Where, found.Stale = list, where, true
			return found, nil
		}
		found.Passed = append(found.Passed, err.Error())
	}
	return found, fmt.Errorf("%w: %s", ErrNotFound, strings.Join(found.Passed, "; "))
}

// allowed returns those of the list that Within allows, and notes the others in found.
func (f *Finder) allowed(list []Endpoint, found *Found) ([]Endpoint, error) {
	if f.Within == nil {
		return list, nil
	}
	var within []Endpoint
	outside := 0
	for _, e := range list {
		if f.Within(e) {
			within = append(within, e)
			continue
		}
		if outside++; outside <= spelled {
			found.Passed = append(found.Passed, fmt.Sprintf("listener %s is outside of endpoint.within", e))
		}
	}
	if outside > spelled {
		found.Passed = append(found.Passed, fmt.Sprintf("so are %d more listeners", outside-spelled))
	}
	if len(within) == 0 {
		return nil, ErrOutside
	}
	return within, nil
}

// lastFrom returns the last known good list if it came from a source of one of the kinds.
func (f *Finder) lastFrom(kinds []string) (lastGoodFile, bool) {
	if f.Last == nil || len(kinds) == 0 {
		return lastGoodFile{}, false
	}
	last, err := f.Last.load()
	return last, err == nil && slices.Contains(kinds, kindOf(last.Where))
}

// kindOf returns the first word of where a list was found: static, ssm or dns.
func kindOf(where string) string {
	kind, _, _ := strings.Cut(where, " ")
	return strings.TrimSuffix(kind, ",")
}

// spelled is how many listeners of a list are named with what is wrong with them: a parameter can hold hundreds, and status is one
// screen.
const spelled = 3

// few joins errors about listeners.
func few(errs []error) error {
	if more := len(errs) - spelled; more > 0 {
		errs = append(slices.Clone(errs[:spelled]), fmt.Errorf("nor can %d more", more))
	}
	return errors.Join(errs...)
}

// addresses replaces names by their addresses. It fails only if no name can be looked up.
func (f *Finder) addresses(ctx context.Context, list []Endpoint) ([]Endpoint, error) {
	var out []Endpoint
	var errs []error
	unsure := false // a name may exist, but DNS could not say
	for _, e := range list {
		if _, ok := e.Addr(); ok {
			out = append(out, e)
			continue
		}
		found, err := f.lookUp(ctx, e)
		if err != nil {
			dns := (*net.DNSError)(nil)
			unsure = unsure || !errors.As(err, &dns) || !dns.IsNotFound
		}
		for _, a := range found {
			// A resolver may answer with an address that Parse would refuse, such as 0.0.0.0 for a blocked name.
			if err = checkHost(a.Host); err == nil {
				out = append(out, a)
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("look up %s: %w", e.Host, err))
		}
	}
	switch {
	case len(out) > 0:
		return out, nil
	case unsure:
		return nil, few(errs)
	}
	return nil, errors.Join(few(errs), ErrAbsent)
}

func (f *Finder) lookUp(ctx context.Context, e Endpoint) ([]Endpoint, error) {
	if f.Lookup == nil {
		return nil, errors.New("names cannot be looked up here")
	}
	return f.Lookup(ctx, e)
}

// Static is a list in the configuration.
type Static struct {
	Endpoints []Endpoint
	Origin    string // the file, variable or flag it came from
}

// Find implements Source.
func (s Static) Find(context.Context) ([]Endpoint, string, error) {
	return s.Endpoints, "static, " + s.Origin, nil
}

var _ Source = Static{}

// Resolver looks names up in DNS.
type Resolver struct {
	// LookupNetIP is net.Resolver's.
	LookupNetIP func(ctx context.Context, network, host string) ([]netip.Addr, error)
	// Zone returns this node's zone. Nil means that it is not known.
	Zone func(ctx context.Context) (name, id string, err error)
}

// Lookup returns the addresses behind e. If e is the name of an AWS network load balancer, the address in the node's own zone
// is looked up by its zonal name (eu-west-1a.NAME) and gets that zone.
func (r Resolver) Lookup(ctx context.Context, e Endpoint) ([]Endpoint, error) {
	var own []netip.Addr
	var zone string
	if r.Zone != nil && isLoadBalancer(e.Host) {
		if name, id, err := r.Zone(ctx); err == nil {
			zone = id
			own, _ = r.LookupNetIP(ctx, "ip", name+"."+e.Host) // fails if the balancer has no node in the zone
		}
	}
	all, err := r.LookupNetIP(ctx, "ip", e.Host)
	if err != nil && len(own) == 0 {
		return nil, err
	}
	var list []Endpoint
	for _, ip := range own {
		list = append(list, Endpoint{Host: ip.Unmap().String(), Port: e.Port, Zone: zone, Priority: e.Priority})
	}
	for _, ip := range all {
		list = append(list, Endpoint{Host: ip.Unmap().String(), Port: e.Port, Zone: e.Zone, Priority: e.Priority})
	}
	return list, nil
}

// isLoadBalancer reports whether host is the name that AWS gave to a load balancer: NAME.elb.REGION.SUFFIX, where the
// partition has its suffix (aws-sdk-go-v2, internal/endpoints/awsrulesfn/partitions.json).
func isLoadBalancer(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for _, suffix := range []string{
		".amazonaws.com",                                                      // aws, aws-us-gov
		".amazonaws.com.cn",                                                   // aws-cn
		".amazonaws.eu",                                                       // aws-eusc
		".c2s.ic.gov", ".sc2s.sgov.gov", ".cloud.adc-e.uk", ".csp.hci.ic.gov", // isolated from the internet
	} {
		if name, ok := strings.CutSuffix(host, suffix); ok {
			labels := strings.Split(name, ".")
			return len(labels) >= 3 && labels[len(labels)-2] == "elb"
		}
	}
	return false
}
