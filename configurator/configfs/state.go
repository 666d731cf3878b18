package configfs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// State is a target as the kernel has it. Its Userdata is sorted by key; an item is secret if only root may read its file.
type State struct {
	Spec
	Enabled  bool
	LocalMAC net.HardwareAddr // the device's while enabled, otherwise broadcast
}

// Diff says for each attribute that differs from s, apart from the name, what is wanted and what is there. It shows no
// secret values.
func (s Spec) Diff(st State) []string {
	var diff []string
	differ := func(attribute string, want, have any) {
		diff = append(diff, fmt.Sprintf("%s: want %v, have %v", attribute, want, have))
	}
	if s.Extended != st.Extended {
		differ("extended", s.Extended, st.Extended)
	}
	if s.Release != st.Release {
		differ("release", s.Release, st.Release)
	}
	if s.Device != st.Device {
		differ("dev_name", s.Device, st.Device)
	}
	if s.LocalIP != st.LocalIP {
		differ("local_ip", s.LocalIP, st.LocalIP)
	}
	if s.RemoteIP != st.RemoteIP {
		differ("remote_ip", s.RemoteIP, st.RemoteIP)
	}
	if s.LocalPort != st.LocalPort {
		differ("local_port", s.LocalPort, st.LocalPort)
	}
	if s.RemotePort != st.RemotePort {
		differ("remote_port", s.RemotePort, st.RemotePort)
	}
	if !bytes.Equal(s.RemoteMAC, st.RemoteMAC) {
		differ("remote_mac", s.RemoteMAC, st.RemoteMAC)
	}
	return append(diff, diffUserdata(s.Userdata, st.Userdata)...)
}

// diffUserdata ignores the order. A secret that others may read is a difference, too.
func diffUserdata(want, have []Datum) []string {
	var diff []string
	for _, w := range want {
		i := slices.IndexFunc(have, func(h Datum) bool { return h.Key == w.Key })
		switch {
		case i < 0:
			diff = append(diff, fmt.Sprintf("userdata/%s: missing", w.Key))
		case w.Secret && !have[i].Secret:
			diff = append(diff, fmt.Sprintf("userdata/%s: readable by everybody", w.Key))
		case w.Value != have[i].Value && w.Secret:
			diff = append(diff, fmt.Sprintf("userdata/%s: another secret", w.Key))
		case w.Value != have[i].Value:
			diff = append(diff, fmt.Sprintf("userdata/%s: want %q, have %q", w.Key, w.Value, have[i].Value))
		}
	}
	for _, h := range have {
		if !slices.ContainsFunc(want, func(w Datum) bool { return w.Key == h.Key }) {
			diff = append(diff, fmt.Sprintf("userdata/%s: not wanted", h.Key))
		}
	}
	return diff
}

// read reads one target back. If the target is gone the error is fs.ErrNotExist.
func (d Dir) read(name string) (State, error) {
	r := reader{dir: d.path(name)}
	st := State{
		Spec: Spec{
			Name:       name,
			Device:     parse(&r, "dev_name", func(s string) (string, error) { return s, nil }),
			LocalIP:    r.addr("local_ip"),
			LocalPort:  r.port("local_port"),
			RemoteIP:   r.addr("remote_ip"),
			RemotePort: r.port("remote_port"),
			RemoteMAC:  r.mac("remote_mac"),
			Extended:   r.flag("extended"),
			Release:    r.has("release") && r.flag("release"),
			Userdata:   r.userdata(),
		},
		Enabled:  r.flag("enabled"),
		LocalMAC: r.mac("local_mac"),
	}
	if r.err != nil {
		return st, fmt.Errorf("read target %s: %w", name, r.err)
	}
	return st, nil
}

// reader reads the attributes of one target. It keeps the first error.
type reader struct {
	dir string
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reader) has(attribute string) bool {
	_, err := os.Stat(filepath.Join(r.dir, attribute))
	return err == nil
}

// text reads an attribute without the line break that the kernel adds.
func (r *reader) text(attribute string) (string, bool) {
	b, err := os.ReadFile(filepath.Join(r.dir, attribute))
	if err != nil {
		r.fail(fmt.Errorf("%s: %w", attribute, bare(err)))
		return "", false
	}
	return strings.TrimSuffix(string(b), "\n"), true
}

// parse reads an attribute and parses it with f. If f fails the value is zero.
func parse[T any](r *reader, attribute string, f func(string) (T, error)) (value T) {
	text, ok := r.text(attribute)
	if !ok {
		return value
	}
	value, err := f(text)
	if err != nil {
		r.fail(fmt.Errorf("%s: cannot parse %q", attribute, text))
	}
	return value
}

func (r *reader) addr(attribute string) netip.Addr { return parse(r, attribute, netip.ParseAddr) }

func (r *reader) mac(attribute string) net.HardwareAddr { return parse(r, attribute, net.ParseMAC) }

func (r *reader) flag(attribute string) bool { return parse(r, attribute, strconv.ParseBool) }

func (r *reader) port(attribute string) uint16 {
	return parse(r, attribute, func(s string) (uint16, error) {
		p, err := strconv.ParseUint(s, 10, 16)
		return uint16(p), err
	})
}

// userdata reads the items, which are directories; the files beside them are switches of the kernel's own.
func (r *reader) userdata() []Datum {
	entries, err := os.ReadDir(filepath.Join(r.dir, "userdata"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a kernel before 6.9
	}
	if err != nil {
		r.fail(fmt.Errorf("userdata: %w", bare(err)))
	}
	var data []Datum
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		d := Datum{Key: e.Name()}
		value := filepath.Join("userdata", e.Name(), "value")
		if info, err := os.Stat(filepath.Join(r.dir, value)); err == nil {
			d.Secret = info.Mode().Perm()&0o077 == 0
		}
		file, err := os.ReadFile(filepath.Join(r.dir, value))
		if err != nil && !(d.Secret && errors.Is(err, fs.ErrPermission)) { // without permission it is enough to know that it exists
			r.fail(fmt.Errorf("%s: %w", value, bare(err)))
		}
		d.Value = strings.TrimSuffix(string(file), "\n")
		data = append(data, d)
	}
	return data
}

// bare removes the path from an error; the caller says where it happened.
func bare(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
