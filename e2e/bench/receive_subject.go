package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/e2e/load"
)

// subject is a receiver that is measured: a process of its own, seen from outside. The kernel says what it received and lost,
// its processor time and its memory, in the same way for all of them.
type subject struct {
	name   string
	at     netip.AddrPort
	dir    string // its log is here, and what a reference finds
	daemon *lab.Daemon
	sender *load.Sender // one for all runs: another socket would be another source
}

// command makes a receiver's command line from the address to receive at and a folder of its own.
type command func(at netip.AddrPort, dir string) ([]string, error)

// start runs a receiver, which has that many sockets.
func start(ctx context.Context, s *scope, name string, sockets int, line command) (*subject, error) {
	at, err := freePort()
	if err != nil {
		return nil, err
	}
	dir, err := memoryDir(s)
	if err != nil {
		return nil, err
	}
	args, err := line(at, dir)
	if err != nil {
		return nil, err
	}
	daemon, err := lab.StartDaemon(s, name, filepath.Join(dir, "log"), exec.CommandContext(ctx, args[0], args[1:]...))
	if err != nil {
		return nil, err
	}
	sender, err := load.NewSender(at)
	if err != nil {
		return nil, err
	}
	s.Cleanup(func() { sender.Close() })
	r := &subject{name: name, at: at, dir: dir, daemon: daemon, sender: sender}
	return r, r.await(ctx, "open its sockets", func() (bool, error) {
		is, err := socketsOf(at.Port())
		return is.open == sockets, err
	})
}

// memoryDir makes a folder in memory if possible: the time that a disk takes to sync must not be measured here.
func memoryDir(s *scope) (string, error) {
	dir, err := os.MkdirTemp("/dev/shm", "lastgasp-bench-")
	if err != nil {
		return tempDir(s)
	}
	s.Cleanup(func() { os.RemoveAll(dir) })
	return dir, nil
}

// freePort returns an address of this machine at which nothing receives.
func freePort() (netip.AddrPort, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("find a free port: %w", err)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort(), nil
}

// errLate means that something did not happen in time.
var errLate = errors.New("not within ten seconds")

// await asks until done, at most ten seconds.
func (r *subject) await(ctx context.Context, what string, done func() (bool, error)) error {
	for ended := time.Now().Add(10 * time.Second); ; {
		if err := r.daemon.Died(); err != nil {
			return err
		}
		ok, err := done()
		if ok || err != nil {
			return err
		}
		if time.Now().After(ended) {
			return fmt.Errorf("wait for %s to %s: %w", r.name, what, errLate)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// reading is what the kernel knows about a receiver.
type reading struct {
	cpu time.Duration // that all its threads have used, those that ended included
	socketState
}

func (r *subject) read() (reading, error) {
	// The number of the clock that counts a process's nanoseconds is made as in include/linux/posix-timers_types.h.
	const schedulerClock = 2 // CPUCLOCK_SCHED
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^r.daemon.PID()<<3|schedulerClock), &t); err != nil {
		return reading{}, fmt.Errorf("read processor time of %s: %w", r.name, err)
	}
	is, err := socketsOf(r.at.Port())
	return reading{time.Duration(t.Nano()), is}, err
}

// socketState is about the sockets on a port, all together.
type socketState struct {
	open    int // sockets
	queued  int // bytes
	dropped int // datagrams, since they were opened
}

// socketsOf reads /proc/net/udp and udp6 (proc_net_udp(5)): a socket bound to no address in particular is there, too.
func socketsOf(port uint16) (is socketState, err error) {
	for _, file := range []string{"/proc/net/udp", "/proc/net/udp6"} {
		text, err := os.ReadFile(file)
		if err != nil {
			return is, err
		}
		is.add(string(text), port)
	}
	return is, nil
}

// add adds up the sockets on a port. The fields of a line are sl, local_address, rem_address, st, tx_queue:rx_queue, …,
// drops.
func (is *socketState) add(table string, port uint16) {
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 13 || !strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
			continue
		}
		_, queue, _ := strings.Cut(f[4], ":")
		queued, _ := strconv.ParseInt(queue, 16, 64)
		dropped, _ := strconv.Atoi(f[len(f)-1])
		is.open++
		is.queued += int(queued)
		is.dropped += dropped
	}
}

// awaitDrained waits until what was sent is read and worked off.
func (r *subject) awaitDrained(ctx context.Context) (last reading, err error) {
	calm := 0
	err = r.await(ctx, "drain its sockets", func() (bool, error) {
		now, err := r.read()
		if err != nil {
			return false, err
		}
		calm++
		if now.queued > 0 || now.cpu-last.cpu > 500*time.Microsecond {
			calm = 0
		}
		last = now
		return calm == 3, nil
	})
	return last, err
}
