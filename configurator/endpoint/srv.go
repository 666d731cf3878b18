package endpoint

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
)

// SRV finds listeners in a DNS SRV record. It uses the priorities and ignores the weights: Choose spreads the nodes.
type SRV struct {
	Name string
	// LookupSRV is net.Resolver's, with empty service and protocol.
	LookupSRV func(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)
}

var _ Source = SRV{}

// Find implements Source.
func (s SRV) Find(ctx context.Context) ([]Endpoint, string, error) {
	where := "dns " + s.Name
	_, records, err := s.LookupSRV(ctx, "", "", s.Name)
	var dns *net.DNSError
	if errors.As(err, &dns) && dns.IsNotFound {
		return nil, where, ErrAbsent
	} else if err != nil {
		return nil, where, err
	}
	var list []Endpoint
	for _, r := range records {
		e := Endpoint{Host: strings.TrimSuffix(r.Target, "."), Port: r.Port, Priority: r.Priority}
		if e.Host == "" {
			continue // a lone "." says that the service is not offered (RFC 2782)
		}
		if _, err := Parse(e.String()); err != nil {
			return nil, where, fmt.Errorf("bad record: %w", err)
		}
		list = append(list, e)
	}
	if len(list) == 0 {
		return nil, where, ErrAbsent
	}
	return list, where, nil
}
