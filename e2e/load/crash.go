package load

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
)

// Crash is every datagram that one dying kernel sent, in order.
type Crash [][]byte

// ReadCrash reads a capture, as in listener/detect/testdata/captures.
func ReadCrash(file string) (Crash, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read capture: %w", err)
	}
	defer f.Close()
	var c Crash
	for dec := json.NewDecoder(f); ; {
		var line struct {
			Payload []byte `json:"payload_b64"`
		}
		err := dec.Decode(&line)
		if errors.Is(err, io.EOF) {
			return c, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read capture %s: %w", file, err)
		}
		c = append(c, line.Payload)
	}
}

// capturedInstance is the lab's name for the machine that it crashes.
const capturedInstance = "i-0123456789abcdef0"

// Of returns the same death as node n's. It refuses a capture with fragments: one might end within a name.
func (c Crash) Of(n int) (Crash, error) {
	boot := c.boot()
	if boot == nil {
		return nil, errors.New("rename a captured crash: no boot id is in it")
	}
	own := make(Crash, len(c))
	for i, payload := range c {
		if bytes.Contains(payload, []byte(",ncfrag=")) {
			return nil, errors.New("rename a captured crash: there are fragments in it")
		}
		payload = bytes.ReplaceAll(payload, []byte(capturedInstance), []byte(Instance(n)))
		own[i] = bytes.ReplaceAll(payload, boot, []byte(Boot(n)))
	}
	return own, nil
}

// boot is the boot id in the capture's userdata, nil if there is none.
func (c Crash) boot() []byte {
	for _, payload := range c {
		if _, value, ok := bytes.Cut(payload, []byte("\n boot=")); ok {
			value, _, _ = bytes.Cut(value, []byte("\n"))
			return value
		}
	}
	return nil
}

// Deaths makes nodes die at the same time, node first+i of crashes[i%len(crashes)]: next returns the first datagram of every
// node, then the second of every node, and so on. next must not be called more than count times.
func Deaths(crashes []Crash, first, nodes int) (next Next, count int, err error) {
	type datagram struct {
		from    netip.Addr
		payload []byte
	}
	byLine := make(map[int][]datagram)
	for i := range nodes {
		own, err := crashes[i%len(crashes)].Of(first + i)
		if err != nil {
			return nil, 0, err
		}
		for line, payload := range own {
			byLine[line] = append(byLine[line], datagram{Addr(first + i), payload})
		}
	}
	var all []datagram
	for line := range len(byLine) {
		all = append(all, byLine[line]...)
	}
	return func() (netip.Addr, []byte) {
		d := all[0]
		all = all[1:]
		return d.from, d.payload
	}, len(all), nil
}
