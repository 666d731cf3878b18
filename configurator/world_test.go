package configurator

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/configurator/canary"
	"github.com/lastgasp/lastgasp/configurator/configfs"
	"github.com/lastgasp/lastgasp/configurator/ec2"
	"github.com/lastgasp/lastgasp/configurator/endpoint"
	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/configurator/nexthop"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

var someTime = time.Date(2026, 11, 21, 22, 0, 0, 0, time.UTC)

// world is a node for tests of whole passes: files below a temporary root, and answers for all else.
type world struct {
	mu       sync.Mutex // of all below, for tests of what runs beside them
	root     machine.Root
	kernel   kernel
	mac      net.HardwareAddr        // of the gateway
	routes   map[string]error        // by destination: why there is none
	deaf     map[netip.AddrPort]bool // listeners that acknowledge nothing
	during   func()                  // happens once, beside the next proof
	proved   int                     // how often canaries were written
	resolved int                     // how often a hop was
	strange  bool                    // the cluster has no Node for this one
	boot     time.Time
	sent     []netconsole.Obituary // that a listener has acknowledged
	loses    bool                  // obituaries are lost
	proofs   []canary.Route        // of the latest proof
}

// kernel is netconsole as a list of targets.
type kernel struct {
	mu      sync.Mutex // of targets and log
	support configfs.Support
	targets []configfs.State
	refuse  error // of Arm
	// refuseTo are listeners behind a device that cannot carry netconsole.
	refuseTo []netip.AddrPort
	log      []string
	probing  func() // happens when a target is made to find out what is supported
}

func (k *kernel) Seen() (configfs.Support, bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.support.Netconsole && len(k.targets) == 0 {
		return configfs.Support{}, false, nil // without a target there is nothing to look at
	}
	return k.support, true, nil
}

func (k *kernel) Support() (configfs.Support, error) {
	if _, sure, _ := k.Seen(); !sure && k.probing != nil {
		k.probing()
	}
	return k.support, nil
}

func (k *kernel) List() ([]configfs.State, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.targets), nil
}

func (k *kernel) Arm(s configfs.Spec) (configfs.State, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.refuse != nil {
		return configfs.State{}, k.refuse
	}
	if slices.Contains(k.refuseTo, s.Remote()) {
		return configfs.State{}, configfs.ErrDevice
	}
	st := configfs.State{Spec: s, Enabled: true, LocalMAC: net.HardwareAddr{2, 0, 0, 0, 0, 5}}
	k.targets = append(k.targets, st)
	k.log = append(k.log, "arm "+s.Name)
	return st, nil
}

func (k *kernel) Others() []configfs.State { return nil }

func (k *kernel) Enabled() ([]string, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var enabled []string
	for _, st := range k.targets {
		if st.Enabled {
			enabled = append(enabled, st.Name)
		}
	}
	slices.Sort(enabled)
	return enabled, nil
}

func (k *kernel) AddUserdata(name string, d configfs.Datum) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range k.targets {
		if st := &k.targets[i]; st.Name == name {
			st.Userdata = append(slices.Clone(st.Userdata), d)
		}
	}
	k.log = append(k.log, "add "+d.Key+" to "+name)
	return nil
}

func (k *kernel) Disarm(name string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.targets = slices.DeleteFunc(k.targets, func(st configfs.State) bool { return st.Name == name })
	k.log = append(k.log, "disarm "+name)
	return nil
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		root:   machine.Root(t.TempDir()),
		kernel: kernel{support: kernel612},
		mac:    gatewayMAC,
		routes: make(map[string]error),
		deaf:   make(map[netip.AddrPort]bool),
		boot:   time.Now().Add(-time.Hour),
	}
	w.write(t, "proc/sys/kernel/random/boot_id", someone.Boot)
	w.write(t, "proc/sys/kernel/osrelease", "6.12.117-cloud-amd64")
	w.write(t, "proc/sys/kernel/panic", "10")
	w.write(t, "proc/sys/kernel/panic_on_oops", "1")
	w.write(t, "proc/sys/kernel/printk", "7\t4\t1\t7")
	w.write(t, "proc/sys/kernel/printk_devkmsg", "ratelimit")
	w.write(t, "etc/machine-id", "0123456789abcdef0123456789abcdef")
	w.write(t, "sys/class/net/ens5/address", "02:00:00:00:00:05")
	return w
}

func (w *world) write(t *testing.T, path, text string) {
	t.Helper()
	full := w.root.Path(path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(text+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// node is a Configurator in w with static endpoints.
func (w *world) node(endpoints ...string) *Configurator {
	cfg := DefaultConfig()
	list, err := endpoint.ParseList(strings.Join(endpoints, ","))
	if err != nil {
		panic(err)
	}
	return &Configurator{
		Config:     cfg,
		Root:       w.root,
		Version:    "v0",
		Log:        slog.New(slog.DiscardHandler),
		Netconsole: &w.kernel,
		Load:       func(context.Context) error { return nil },
		Sources:    []endpoint.Source{endpoint.Static{Endpoints: list, Origin: "test"}},
		Resolve:    w.resolve,
		Instance: func(context.Context) (ec2.Instance, error) {
			panic("the metadata service was asked off EC2")
		},
		Prove: w.prove,
		Deliver: func(_ context.Context, id netconsole.Identity, o netconsole.Obituary, routes []canary.Route) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.loses || id.Secret == "" || len(routes) == 0 {
				return errCable
			}
			w.sent = append(w.sent, o)
			return nil
		},
		Uptime: func() time.Duration { return time.Since(w.boot) },
	}
}

func (w *world) resolve(ctx context.Context, q nexthop.Query) (nexthop.Hop, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.resolved++
	if err := ctx.Err(); err != nil {
		return nexthop.Hop{}, err
	}
	if err := w.routes[q.Destination.String()]; err != nil {
		return nexthop.Hop{}, err
	}
	return nexthop.Hop{
		Device: "ens5", DeviceMAC: net.HardwareAddr{2, 0, 0, 0, 0, 5},
		Source: netip.MustParseAddr("10.0.1.5"), NextHop: netip.MustParseAddr("10.0.1.1"), NextHopMAC: w.mac,
	}, nil
}

// path is what the kernel's tables say of the way that resolve finds.
func (w *world) path(q nexthop.Query) nexthop.Path {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.routes[q.Destination.String()]; err != nil {
		return nexthop.Path{Destination: q.Destination, Problem: err.Error()}
	}
	return nexthop.Path{Destination: q.Destination, Device: "ens5", Source: netip.MustParseAddr("10.0.1.5"), NextHop: netip.MustParseAddr("10.0.1.1"), NextHopMAC: w.mac.String()}
}

func (w *world) prove(_ context.Context, _ machine.Identity, _ machine.Facts, routes []canary.Route) ([]canary.Proof, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.proved++
	w.proofs = slices.Clone(routes)
	if w.during != nil {
		w.during()
		w.during = nil
	}
	var proofs []canary.Proof
	for _, r := range routes {
		p := canary.Proof{Target: r.Target, Listener: r.Remote, Acked: !w.deaf[r.Remote], Known: !w.strange, RTT: time.Millisecond}
		if !p.Acked {
			p.Known, p.RTT, p.Why = false, 0, "no acknowledgement"
		}
		proofs = append(proofs, p)
	}
	return proofs, nil
}

// change changes the world beside what runs in it.
func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kernel.mu.Lock()
	defer w.kernel.mu.Unlock()
	f()
}

var goodFacts = machine.Facts{Facts: netconsole.Facts{Kernel: "6.12.117", Panic: 10, ConsoleLevel: 7, Version: "v0"}, Devkmsg: "ratelimit"}

// read is the trimmed content of a file below the root, empty if there is none.
func (w *world) read(path string) string {
	data, _ := os.ReadFile(w.root.Path(path))
	return strings.TrimSpace(string(data))
}

const panicFile = "proc/sys/kernel/panic"

var errCable = errors.New("cable unplugged")
