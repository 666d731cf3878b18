package lab

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// NS is one of the lab's network namespaces. `ip netns` shows it by its name.
type NS struct {
	Name string
	fd   netns.NsHandle
}

// NewNS makes a namespace with lo up, removed when s ends. Several labs may use the same name.
func NewNS(s Scope, name string) (*NS, error) {
	sweepNS()
	name = fmt.Sprintf("lastgasp-%d-%s-%s", os.Getpid(), strings.ToLower(rand.Text()[:4]), name)
	ns := &NS{Name: name}
	err := onOwnThread(func() error {
		fd, err := netns.NewNamed(name)
		if err != nil {
			return fmt.Errorf("make network namespace %s: %w", name, err)
		}
		ns.fd = fd
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("find lo in %s: %w", name, err)
		}
		return netlink.LinkSetUp(lo)
	})
	if err != nil {
		return nil, err
	}
	s.Cleanup(func() {
		ns.fd.Close()
		netns.DeleteNamed(name)
	})
	return ns, nil
}

// sweepNS removes the namespaces of processes that ended without cleaning up: killed, or stopped by go test's timeout.
func sweepNS() {
	paths, _ := filepath.Glob("/run/netns/lastgasp-*") // the only error is a bad pattern
	for _, path := range paths {
		var pid int
		name := filepath.Base(path)
		if _, err := fmt.Sscanf(name, "lastgasp-%d-", &pid); err != nil {
			continue
		}
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			netns.DeleteNamed(name)
		}
	}
}

// Do runs f on a thread inside the namespace. Sockets that f opens stay in the namespace wherever they are used later;
// goroutines that f starts do not.
func (ns *NS) Do(f func() error) error {
	return onOwnThread(func() error {
		if err := netns.Set(ns.fd); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", ns.Name, err)
		}
		return f()
	})
}

// Dial connects from inside the namespace, wherever the caller is. The address must not need a look-up.
func (ns *NS) Dial(ctx context.Context, network, address string) (conn net.Conn, err error) {
	err = ns.Do(func() error {
		var dialer net.Dialer
		conn, err = dialer.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Command is exec.CommandContext inside the namespace. The process gets SIGTERM when ctx ends and dies with the lab's
// process in any case.
func (ns *NS) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", ns.Name, name}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	return cmd
}

// onOwnThread runs f on an OS thread that ends with f, so that a changed namespace can never leak to other goroutines.
func onOwnThread(f func() error) error {
	errc := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		errc <- f()
	}()
	return <-errc
}
