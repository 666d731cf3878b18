package configfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Dir is netconsole's directory in configfs: every directory below it is a target (Documentation/networking/netconsole.rst).
type Dir string

// DefaultDir is where every distribution has it.
const DefaultDir Dir = "/sys/kernel/config/netconsole"

// ErrDevice means that the kernel cannot send netconsole through the device named.
var ErrDevice = errors.New("device cannot carry netconsole")

// Support is what this kernel's netconsole can do.
type Support struct {
	Netconsole bool // the directory is there; otherwise nothing else is known
	Extended   bool // 4.2: records with sequence number and time
	Release    bool // 6.6: records start with the kernel's release
	Userdata   bool // 6.9: records end with our key=value lines
}

// Seen returns what the kernel can do if that can be found out without changing anything: from the attributes of one of our
// targets, or because there is no netconsole. Otherwise sure is false, and Support has to be asked.
func (d Dir) Seen() (s Support, sure bool, err error) {
	names, err := d.names()
	if errors.Is(err, fs.ErrNotExist) {
		return Support{}, true, nil
	}
	if err != nil {
		return Support{}, false, err
	}
	for _, name := range names {
		if s := d.inspect(name); s.Netconsole {
			return s, true, nil
		}
	}
	return Support{}, false, nil
}

// probe is a target that Support makes and removes at once. It is never enabled, and nothing else counts it as a target.
const probe = Prefix + "probe"

// Support is Seen, but makes a target to look at if there is none. Like every change it is for one process at a time.
func (d Dir) Support() (Support, error) {
	if s, sure, err := d.Seen(); sure || err != nil {
		return s, err
	}
	// If it exists already, a process that was killed has left it behind.
	if err := os.Mkdir(d.path(probe), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return Support{}, fmt.Errorf("find out what netconsole can do: make a target: %w", denied(err))
	}
	s := d.inspect(probe)
	if err := d.Disarm(probe); err != nil {
		return Support{}, fmt.Errorf("find out what netconsole can do: %w", err)
	}
	return s, nil
}

// inspect looks which attributes a target has. Every kernel has "enabled", unless the target is gone.
func (d Dir) inspect(name string) Support {
	r := reader{dir: d.path(name)}
	return Support{
		Extended:   r.has("extended"),
		Release:    r.has("release"),
		Userdata:   r.has("userdata"),
		Netconsole: r.has("enabled"), // last: if the target still exists, it existed for the others
	}
}

// List reads the targets that are ours, sorted by name; without netconsole there are none. An attribute that
// cannot be parsed is left zero; the error names it, and all targets are returned all the same.
func (d Dir) List() ([]State, error) {
	names, err := d.names()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var (
		states []State
		errs   []error
	)
	for _, name := range names {
		st, err := d.read(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed since
		}
		states, errs = append(states, st), append(errs, err)
	}
	return states, errors.Join(errs...)
}

// Others returns the enabled targets that are not ours, as far as they can be read: with them we only share source ports.
func (d Dir) Others() []State {
	entries, _ := os.ReadDir(string(d)) // without netconsole there are none
	var states []State
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), Prefix) {
			continue
		}
		if st, _ := d.read(e.Name()); st.Enabled {
			states = append(states, st)
		}
	}
	return states
}

// names returns the names of our targets, without the one that another process may be probing with.
func (d Dir) names() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, fmt.Errorf("list netconsole targets: %w", bare(err))
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), Prefix) && e.Name() != probe {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Enabled returns the names of our enabled targets, sorted. It reads only one file for each target.
func (d Dir) Enabled() ([]string, error) {
	names, err := d.names()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var enabled []string
	for _, name := range names {
		r := reader{dir: d.path(name)}
		if r.flag("enabled") {
			enabled = append(enabled, name)
		}
	}
	return enabled, err
}

// AddUserdata adds one item to one of our targets, enabled or not. The kernel sends it from the next record on.
func (d Dir) AddUserdata(name string, u Datum) error {
	if err := errors.Join(validateUserdata([]Datum{u})...); err != nil {
		return fmt.Errorf("add userdata to target %s: %w", name, err)
	}
	if err := d.setUserdata(name, u); err != nil {
		return fmt.Errorf("add userdata/%s to target %s: %w", u.Key, name, err)
	}
	return nil
}

// Arm makes a new target named s.Name, writes everything and reads it back, and enables it. The kernel then logs that it
// started, and sends that line through the new target, too. If anything is not exactly as s says, the target is removed
// again and the error says why: ErrDevice if it is the device's fault, ErrNoModule if there is no netconsole.
//
// The kernel brings up a device that is down, and may wait seconds for its carrier (netpoll_setup).
func (d Dir) Arm(s Spec) (State, error) {
	st, err := d.arm(s)
	if err != nil {
		return State{}, fmt.Errorf("arm target %s: %w", s.Name, err)
	}
	return st, nil
}

func (d Dir) arm(s Spec) (State, error) {
	if err := s.Validate(); err != nil {
		return State{}, err
	}
	switch err := os.Mkdir(d.path(s.Name), 0o755); {
	case errors.Is(err, fs.ErrNotExist):
		return State{}, fmt.Errorf("%w: there is no %s", ErrNoModule, d)
	case err != nil:
		return State{}, fmt.Errorf("make its directory: %w", denied(err))
	}
	st, err := d.fill(s)
	if err != nil {
		return State{}, errors.Join(err, d.Disarm(s.Name))
	}
	return st, nil
}

// fill writes the new target s.Name and enables it.
func (d Dir) fill(s Spec) (State, error) {
	if err := d.write(s); err != nil {
		return State{}, err
	}
	// Kernels up to 6.12 accept any text as an address ("1.2.3" becomes 1.2.3.0), later ones accept the wrong family.
	if _, err := d.compare(s); err != nil {
		return State{}, err
	}
	if err := d.set(s.Name, "enabled", "1"); err != nil {
		return State{}, enableError(s, err)
	}
	st, err := d.compare(s)
	switch {
	case err != nil:
		return State{}, err
	case !st.Enabled:
		return State{}, errors.New("the kernel disabled it at once")
	case UnfitMAC(st.LocalMAC) != "":
		return State{}, fmt.Errorf("%w: %s has the MAC %s, %s", ErrDevice, s.Device, st.LocalMAC, UnfitMAC(st.LocalMAC))
	}
	return st, nil
}

// write writes every attribute but enabled. It always writes both addresses, because either decides the family of both.
func (d Dir) write(s Spec) error {
	attributes := []struct{ name, value string }{
		{"extended", bit(s.Extended)},
		{"release", bit(s.Release)},
		{"dev_name", s.Device},
		{"local_ip", s.LocalIP.String()},
		{"remote_ip", s.RemoteIP.String()},
		{"local_port", strconv.Itoa(int(s.LocalPort))},
		{"remote_port", strconv.Itoa(int(s.RemotePort))},
		{"remote_mac", s.RemoteMAC.String()},
	}
	for _, a := range attributes {
		err := d.set(s.Name, a.name, a.value)
		if a.name == "release" && !s.Release && errors.Is(err, fs.ErrNotExist) {
			continue // a kernel before 6.6, and release is not wanted
		}
		if err != nil {
			return fmt.Errorf("write %s: %w", a.name, err)
		}
	}
	for _, u := range s.Userdata {
		if err := d.setUserdata(s.Name, u); err != nil {
			return fmt.Errorf("write userdata/%s: %w", u.Key, err)
		}
	}
	return nil
}

// setUserdata makes one item. Before it writes a secret it makes the file unreadable for others.
func (d Dir) setUserdata(name string, u Datum) error {
	item := filepath.Join("userdata", u.Key)
	value := filepath.Join(item, "value")
	switch err := os.Mkdir(d.path(name, item), 0o755); {
	case errors.Is(err, unix.ENOSPC):
		return errors.New("the kernel takes no more items")
	case err != nil:
		return denied(err)
	}
	if u.Secret {
		if err := os.Chmod(d.path(name, value), 0o600); err != nil {
			return denied(err)
		}
	}
	return d.set(name, value, u.Value)
}

// set writes one attribute with one write(2), as configfs requires, and without a line break, which the kernel does not need.
func (d Dir) set(name, attribute, value string) error {
	f, err := os.OpenFile(d.path(name, attribute), os.O_WRONLY, 0)
	if err != nil {
		return denied(err)
	}
	defer f.Close() // configfs returns its errors from write, not from close
	_, err = f.WriteString(value)
	return denied(err)
}

// denied is bare, and says what to do if the kernel never saw the change. A nil error stays nil.
func denied(err error) error {
	err = bare(err)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w; run it as root, or look for a denial by SELinux or AppArmor in the audit log", err)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w; mount configfs read-write: mount -o remount,rw /sys/kernel/config", err)
	}
	return err
}

// compare reads the target back and returns an error if it is not as s says.
func (d Dir) compare(s Spec) (State, error) {
	st, err := d.read(s.Name)
	if err != nil {
		return State{}, err
	}
	if diff := s.Diff(st); len(diff) > 0 {
		return State{}, fmt.Errorf("the kernel stored something else: %s", strings.Join(diff, "; "))
	}
	return st, nil
}

// enableError says what an errno from writing "enabled" means (netpoll_setup, net/core/netpoll.c; enabled_store,
// drivers/net/netconsole.c).
func enableError(s Spec, err error) error {
	const notSupported = syscall.Errno(524) // ENOTSUPP of include/linux/errno.h, unknown to user space
	switch {
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w: there is no %s in this network namespace", ErrDevice, s.Device)
	case errors.Is(err, unix.EBUSY):
		return fmt.Errorf("%w: %s has a master (bridge, bond, team, VRF or Open vSwitch)", ErrDevice, s.Device)
	case errors.Is(err, notSupported):
		return fmt.Errorf("%w: the driver of %s refuses netpoll", ErrDevice, s.Device)
	case errors.Is(err, unix.EDESTADDRREQ):
		return fmt.Errorf("%w: %s has no address", ErrDevice, s.Device)
	}
	return fmt.Errorf("enable: %w", err)
}

// Disarm removes one of our targets, enabled or not. A target that does not exist is no error.
func (d Dir) Disarm(name string) error {
	if !strings.HasPrefix(name, Prefix) || filepath.Base(name) != name {
		return fmt.Errorf("disarm target %q: it is not ours (%s…)", name, Prefix)
	}
	if err := d.disarm(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("disarm target %s: %w", name, err)
	}
	return nil
}

func (d Dir) disarm(name string) error {
	r := reader{dir: d.path(name)}
	// Disable it first, or records would go out without their userdata. Kernels complain about disabling it twice, and the
	// kernel may be first: it disables the targets of a device that goes away.
	if r.flag("enabled") {
		if err := d.set(name, "enabled", "0"); err != nil && !errors.Is(err, unix.EINVAL) {
			return fmt.Errorf("disable: %w", err)
		}
	}
	for _, u := range r.userdata() { // since 6.9 the directory must be empty of our keys
		if err := unix.Rmdir(d.path(name, "userdata", u.Key)); err != nil {
			return fmt.Errorf("remove userdata/%s: %w", u.Key, err)
		}
	}
	if err := unix.Rmdir(d.path(name)); err != nil {
		return fmt.Errorf("remove its directory: %w", err)
	}
	return nil
}

func (d Dir) path(elem ...string) string {
	return filepath.Join(append([]string{string(d)}, elem...)...)
}

// bit returns a switch as configfs takes it. Kernels before 6.6 understand no words.
func bit(b bool) string {
	if b {
		return "1"
	}
	return "0"
}
