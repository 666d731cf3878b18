package detect

import (
	"net/netip"
	"runtime"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// dull are records such as sources send all day, with identity.
func dull() []netconsole.Record {
	texts := []string{
		"IPv6: ADDRCONF(NETDEV_CHANGE): veth3f2a1b: link becomes ready",
		"cni0: port 1(veth3f2a1b) entered blocking state",
		"audit: type=1400 audit(1700000000.123:45): apparmor=\"DENIED\" operation=\"open\" profile=\"x\" name=\"/proc/1/mem\" pid=412 comm=\"java\"",
		"BTRFS info (device vda1): using free space tree",
		"EXT4-fs (nvme1n1): mounted filesystem with ordered data mode. Quota mode: none.",
		"CPU: 1 UID: 0 PID: 170 Comm: insmod Tainted: G           OE      6.12.117+deb13-cloud-amd64 #1  Debian 6.12.117-1",
		"RAX: 0000000000000000 RBX: ffffffffc031a048 RCX: 0000000000000000",
		" ? arch_exit_to_user_mode_prepare.isra.0+0x16/0xa0",
		"nf_conntrack: nf_conntrack: table full, dropping packet",
		"systemd-journald[231]: Received client request to flush runtime journal.",
	}
	records := make([]netconsole.Record, len(texts))
	for i, text := range texts {
		records[i] = netconsole.Record{
			Extended: true, Prefix: 6, Seq: uint64(i), Uptime: time.Duration(i) * time.Second, Text: []byte(text),
			Fields: identity("8cb8ddd1-6587-41f6-b567-0e9c46b29ec2", "bGFzdGdhc3AtbGFiLWdhc3A"),
		}
	}
	return records
}

func BenchmarkPushDull(b *testing.B) {
	records := dull()
	s := NewSource(&Config{}, netip.AddrPort{})
	emit := func(Incident) { b.Fatal("an incident") }
	now := start
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		r := &records[i%len(records)]
		r.Seq, r.Uptime = uint64(i), time.Duration(i)*time.Millisecond
		s.Push(now, r, emit)
		i++
	}
}

func TestADullRecordAllocatesNothing(t *testing.T) {
	records := dull()
	s := NewSource(&Config{}, netip.AddrPort{})
	emit := func(Incident) { t.Error("an incident") }
	push := func() {
		for i := range records {
			s.Push(start, &records[i], emit)
		}
	}
	for range 100 {
		push() // until the ring is full
	}
	if n := testing.AllocsPerRun(100, push); n != 0 {
		t.Errorf("%v allocations for %d records", n, len(records))
	}
}

func TestAnIdleSourceIsSmall(t *testing.T) {
	const n = 2000
	records := dull()
	canary := records[0]
	canary.Prefix, canary.Text = 14, []byte("lastgasp: canary v1 nonce=0123456789abcdef0123456789abcdef instance=i-1 boot=b")
	cfg := &Config{}
	emit := func(Incident) { t.Error("an incident") }
	sources := make([]*Source, n)

	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range sources {
		s := NewSource(cfg, netip.AddrPort{})
		for j := range records { // what comes when it is armed
			s.Push(start, &records[j], emit)
		}
		for range 50 {
			s.Push(start, &canary, emit)
		}
		sources[i] = s
	}
	each := (heap() - before) / n
	runtime.KeepAlive(sources)
	t.Logf("%d bytes each", each)
	if each > 4<<10 {
		t.Errorf("an idle source takes %d bytes, want at most 4096", each)
	}
}
