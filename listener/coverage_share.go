package listener

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
	"github.com/lastgasp/lastgasp/listener/receive"
)

const (
	// shareEvery is how often replicas exchange what they have heard. Canaries come every ten minutes by default.
	shareEvery = time.Minute
	// shareTimeout bounds one exchange.
	shareTimeout = 30 * time.Second
	// partSize bounds a part, in bytes: an object has room for 256 KiB of annotations, and base64 takes a third more.
	partSize = 128 << 10
	// sharedStrangers bounds the strangers that are shared. Anybody can make up canaries at no cost.
	sharedStrangers = 1000
	// maxShared bounds, in bytes, what one part may unpack to.
	maxShared = 16 << 20
	// maxWhy bounds, in bytes, what a node says of its kernel.
	maxWhy = 256
)

// A Board is where the replicas of one cluster leave what each of them has heard.
type Board interface {
	// ShareCoverage replaces what this replica has left before.
	ShareCoverage(ctx context.Context, parts [][]byte) error
	// SharedCoverage returns what all replicas have left, also those that have ended recently.
	SharedCoverage(ctx context.Context) ([][]byte, error)
}

// shared is the last canary of an address as replicas exchange it. One that contradicts its node's pin is not shared.
type shared struct {
	From     netip.Addr    `json:"a"`
	At       time.Time     `json:"t"`
	Interval time.Duration `json:"i,omitempty"`
	Known    bool          `json:"k,omitempty"`
	Verified bool          `json:"v,omitempty"`
	Mute     string        `json:"m,omitempty"`
	Kernel   string        `json:"r,omitempty"`
	Instance string        `json:"n,omitempty"` // of strangers: Nodes have a name
}

// KeepShared exchanges coverage with the other replicas until ctx ends. A load balancer sends each node's canaries to one of
// them, and all have to give the same answer.
func (c *Coverage) KeepShared(ctx context.Context, board Board, roster func() []RosterNode, log *slog.Logger) error {
	for failing := false; ; {
		exchange, cancel := context.WithTimeout(ctx, shareTimeout)
		err := c.exchange(exchange, time.Now(), board, roster())
		cancel()
		if err != nil && ctx.Err() == nil && !failing {
			log.Warn("coverage is not exchanged with other replicas; each counts only the nodes it has heard itself", "err", err)
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(shareEvery):
		}
	}
}

func (c *Coverage) exchange(ctx context.Context, now time.Time, board Board, roster []RosterNode) error {
	left, err := board.SharedCoverage(ctx)
	if err != nil {
		return err
	}
	err = c.adopt(now, left)
	if len(roster) == 0 {
		return err // the Nodes have not been listed yet
	}
	parts, encodeErr := encodeShared(c.toShare(now, roster))
	if encodeErr != nil {
		return errors.Join(err, encodeErr)
	}
	return errors.Join(err, board.ShareCoverage(ctx, parts))
}

// toShare lists what is known of each address, whichever replica heard it, so that it outlives that replica. Addresses that have been
// silent for long and belong to no Node are dropped. A kubelet may list any address as its Node's, and pin any boot: what one Node
// proves, no other contradicts.
func (c *Coverage) toShare(now time.Time, roster []RosterNode) []shared {
	byAddr, isNode := c.merged(), make(map[netip.Addr]bool)
	contradicted, proven := make(map[netip.Addr]bool), make(map[netip.Addr]bool)
	for _, n := range roster {
		for _, addr := range n.Addresses {
			p := byAddr[addr]
			isNode[addr] = true
			contradicted[addr] = contradicted[addr] || p.contradicts(n.Pin)
			proven[addr] = proven[addr] || n.Pin == policy.Pin{Boot: p.Boot, Sum: p.sum}
		}
	}
	maps.DeleteFunc(byAddr, func(addr netip.Addr, _ proof) bool { return contradicted[addr] && !proven[addr] })
	var rows []shared
	strangers := 0
	for addr, p := range byAddr {
		if !isNode[addr] && p.silent(now) {
			continue
		}
		s := shared{
			From: addr, At: p.At.UTC().Truncate(time.Second), Interval: p.Interval, Known: p.Known, Verified: p.Verified,
			Mute: cut(p.mute()), Kernel: cut(p.Facts.Kernel),
		}
		if !p.Known {
			if strangers++; strangers > sharedStrangers {
				continue
			}
			s.Instance = cut(p.Instance)
		}
		rows = append(rows, s)
	}
	slices.SortFunc(rows, func(a, b shared) int { return a.From.Compare(b.From) })
	return rows
}

func cut(s string) string { return s[:min(len(s), maxWhy)] }

// encodeShared packs rows into parts of at most partSize bytes.
func encodeShared(rows []shared) ([][]byte, error) {
	if len(rows) == 0 {
		return nil, nil
	}
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if err := errors.Join(json.NewEncoder(z).Encode(rows), z.Close()); err != nil {
		return nil, fmt.Errorf("encode coverage: %w", err)
	}
	if b.Len() <= partSize || len(rows) == 1 {
		return [][]byte{b.Bytes()}, nil
	}
	first, err := encodeShared(rows[:len(rows)/2])
	if err != nil {
		return nil, err
	}
	second, err := encodeShared(rows[len(rows)/2:])
	return slices.Concat(first, second), err
}

// adopt replaces what is known from other replicas by these parts. It skips parts that it cannot read, such as a newer replica's, and
// entries from the future, which come from a clock that is ahead: their nodes could not fall silent.
func (c *Coverage) adopt(now time.Time, parts [][]byte) error {
	others := make(map[netip.Addr]proof)
	var errs []error
	for _, part := range parts {
		rows, err := decodeShared(part)
		if err != nil {
			errs = append(errs, fmt.Errorf("read another replica's coverage: %w", err))
			continue
		}
		for _, s := range rows {
			if s.At.After(now.Add(slack)) {
				continue
			}
			p := proof{Canary: receive.Canary{
				At: s.At, From: s.From, Known: s.Known, Verified: s.Verified,
				Canary: netconsole.Canary{Interval: s.Interval, Instance: s.Instance, Facts: netconsole.Facts{Kernel: s.Kernel}},
			}, shared: true, sharedMute: s.Mute}
			old, found := others[s.From]
			if (found || len(others) < maxCovered+maxStrangers) && (!found || p.outweighs(old)) {
				others[s.From] = p
			}
		}
	}
	c.mu.Lock()
	c.others = others
	c.mu.Unlock()
	return errors.Join(errs...)
}

func decodeShared(part []byte) (rows []shared, err error) {
	z, err := gzip.NewReader(bytes.NewReader(part))
	if err != nil {
		return nil, err
	}
	return rows, json.NewDecoder(io.LimitReader(z, maxShared)).Decode(&rows)
}

// outweighs reports whether p says more about its address than old does: as in Canary, what a node proved is not replaced by
// what anybody may have sent, unless the node has been silent since.
func (p proof) outweighs(old proof) bool {
	if p.silent(old.At) || old.silent(p.At) {
		return p.At.After(old.At)
	}
	return cmp.Or(cmp.Compare(p.rank(), old.rank()), p.At.Compare(old.At)) > 0
}
