package load

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// Format is the format of the Nodes' records.
type Format int

const (
	// Extended records with release and userdata, one datagram each: what the configurator arms.
	Extended Format = iota
	// Fragmented is Extended with lines that are too long for one datagram.
	Fragmented
	// Basic is the text alone.
	Basic
)

func (f Format) String() string { return [...]string{"extended", "fragmented", "basic"}[f] }

// Release is the kernel that every node runs.
const Release = "6.12.117+deb13-cloud-amd64"

// chatter is what healthy kernels log.
var chatter = [...]string{
	"IPv6: ADDRCONF(NETDEV_CHANGE): eni3f2a1b7c9d0: link becomes ready",
	"eth0: renamed from tmp5c1f4",
	"device eni3f2a1b7c9d0 entered promiscuous mode",
	"cni0: port 3(veth91e0a2f4) entered blocking state",
	"cni0: port 3(veth91e0a2f4) entered forwarding state",
	"EXT4-fs (nvme1n1): mounted filesystem 5d1f0c0e-7a55-4a35-9f0e-6e3a1d5b2c11 r/w with ordered data mode. Quota mode: none.",
	"TCP: request_sock_TCP: Possible SYN flooding on port 0.0.0.0:8080. Sending cookies.",
	"nvme nvme2: 2/0/0 default/read/poll queues",
}

// Nodes are many healthy nodes, each with its own address, identity and record numbers.
type Nodes struct {
	format Format
	nodes  []node
	turn   int // the node whose record is next
	seq    int // of that record; all nodes have the same

	buf, rest []byte // rest is the second fragment, empty if there is none
	restFrom  netip.Addr
}

// node is one sender.
type node struct {
	number   int
	addr     netip.Addr
	userdata string // empty on kernels before 6.9
}

// Instance is the name of node n.
func Instance(n int) string { return fmt.Sprintf("i-%017x", n+1) }

// Boot is the boot id of node n.
func Boot(n int) string { return fmt.Sprintf("%08x-5e1f-4c0d-8f5e-0123456789ab", n+1) }

// Secret is the secret of node n.
func Secret(n int) string { return fmt.Sprintf("%022d", n) }

// Addr is the address of node n, below 16,000,000.
func Addr(n int) netip.Addr {
	n += 1 << 16 // leave 127.0.0.0/16 to others
	return netip.AddrFrom4([4]byte{127, byte(n >> 16), byte(n >> 8), byte(n)})
}

// NewNodes makes n nodes, whose names begin at number first.
func NewNodes(first, n int, format Format) *Nodes {
	f := &Nodes{format: format, nodes: make([]node, n), seq: 1000}
	for i := range f.nodes {
		f.nodes[i].number, f.nodes[i].addr = first+i, Addr(first+i)
		if format != Basic {
			f.nodes[i].userdata = fmt.Sprintf(" instance=%s\n boot=%s\n gasp=%s\n", Instance(first+i), Boot(first+i), Secret(first+i))
		}
	}
	return f
}

// Chatter returns the next datagram, valid until the next call. The nodes take turns, which is worst for caches.
func (f *Nodes) Chatter() (netip.Addr, []byte) {
	if rest := f.rest; len(rest) > 0 {
		f.rest = nil
		return f.restFrom, rest
	}
	n, seq := f.take()
	text := chatter[seq%len(chatter)]
	switch f.format {
	case Fragmented:
		f.buf, f.rest = fragments(seq, text, n.userdata)
		f.restFrom = n.addr
	case Basic:
		f.buf = fmt.Appendf(f.buf[:0], "[%5d.%06d] %s\n", seq, seq, text)
	default:
		f.buf = Record(f.buf[:0], 6, seq, text, n.userdata)
	}
	return n.addr, f.buf
}

// Canary is the next node's canary, as the configurator has the kernel send it.
func (f *Nodes) Canary() (netip.Addr, []byte) {
	n, seq := f.take()
	line := netconsole.Canary{
		Nonce: fmt.Sprintf("%032x", n.number), Instance: Instance(n.number), Boot: Boot(n.number),
		Facts: netconsole.Facts{Kernel: Release, Panic: 10, PanicOnOops: true, ConsoleLevel: 7, Version: "bench"},
	}.Line()
	f.buf = Record(f.buf[:0], 12, seq, line, n.userdata)
	return n.addr, f.buf
}

// take returns the node whose turn it is, and the number of its record.
func (f *Nodes) take() (n *node, seq int) {
	n, seq = &f.nodes[f.turn], f.seq
	if f.turn++; f.turn == len(f.nodes) {
		f.turn, f.seq = 0, f.seq+1
	}
	return n, seq
}

// Record appends an extended record with its userdata, lines that each begin with a blank.
func Record(b []byte, prefix, seq int, text, userdata string) []byte {
	b = append(header(b, prefix, seq), ';')
	return append(append(append(b, text...), '\n'), userdata...)
}

// header appends what stands in front of the semicolon.
func header(b []byte, prefix, seq int) []byte {
	b = append(append(b, Release...), ',')
	b = append(strconv.AppendInt(b, int64(prefix), 10), ',')
	b = append(strconv.AppendInt(b, int64(seq), 10), ',')
	return append(strconv.AppendInt(b, int64(seq)*1000, 10), ",-"...)
}

// fragments repeats text until it needs two datagrams, cut as send_fragmented_body in drivers/net/netconsole.c does it.
func fragments(seq int, text, userdata string) (first, second []byte) {
	const long = 960 // a record's text is 1024 bytes at most (PRINTKRB_RECORD_MAX)
	body := strings.Repeat(text+" ", long/len(text)+1)[:long] + "\n" + userdata
	piece := func(offset, end int) []byte {
		return fmt.Appendf(header(nil, 6, seq), ",ncfrag=%d/%d;%s", offset, len(body), body[offset:end])
	}
	cut := maxDatagram - len(piece(0, 0)) - len("0000")
	return piece(0, cut), piece(cut, len(body))
}
