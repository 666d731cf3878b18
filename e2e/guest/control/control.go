// Package control is the protocol between the lab and its guest: the configuration that the initramfs carries, and then one
// JSON object per line over the guest's second serial port.
package control

import (
	"io/fs"
	"net/netip"
	"runtime"
	"time"
)

// ConfigPath is where the initramfs carries the Config.
const ConfigPath = "/lab.json"

// Port is the guest's end of the control channel. On arm64 the console is not a ttyS.
func Port() string {
	if runtime.GOARCH == "arm64" {
		return "/dev/ttyS0"
	}
	return "/dev/ttyS1"
}

// ChunkSize is how many bytes of a file one message carries at most. A kernel attribute fits into one, and is thereby
// written with a single write(2). The guest's serial driver holds 64 KiB that nobody has read yet.
const ChunkSize = 16 << 10

// CrashModule is where the initramfs carries the crash module, if it has one.
const CrashModule = "/lib/lastgasp_crash.ko"

// Config is what a guest has to do before it is ready.
type Config struct {
	Hostname  string
	MachineID string
	Addr      netip.Prefix      // of eth0
	Gateway   netip.Addr        // default route; may be invalid: none
	Modules   []string          // loaded in this order, each after what it depends on
	Sysctls   map[string]string // dots for slashes
}

// Cost is what the guest's program measure prints of another.
type Cost struct {
	Wall time.Duration // from start to end, or for how long it was watched
	CPU  time.Duration // in that time
	RSS  int64         // bytes, of one that stays
	// Of a Go program that stays: how often its threads but the runtime's monitor have gone to sleep, and its reads of any kind
	// (syscr of /proc/PID/io).
	Sleeps, Reads int64
}

// Op names what a Request asks for.
type Op string

// What a guest can be asked for. Crash is never answered.
const (
	Run    Op = "run"    // run Argv to its end
	Start  Op = "start"  // start Argv and leave it running, its output in Path
	Read   Op = "read"   // return up to ChunkSize bytes of Path from Offset
	Write  Op = "write"  // write Data to Path with one write(2), which Append extends
	Mkdir  Op = "mkdir"  // make the directory Path
	Remove Op = "remove" // remove the file or empty directory Path
	Crash  Op = "crash"  // go down as Argv says: a Trigger and its argument
)

// Triggers of a crash, the first word of its Argv.
const (
	TriggerSysrq  = "sysrq"     // write the second word to /proc/sysrq-trigger
	TriggerInit   = "init-exit" // process 1 exits
	TriggerModule = "module"    // load the crash module with the other words as parameters
)

// Request asks the guest for something. Answers may come out of order.
type Request struct {
	ID      uint64
	Op      Op
	Argv    []string      `json:",omitempty"`
	Env     []string      `json:",omitempty"` // added to PATH and HOME
	Stdin   []byte        `json:",omitempty"`
	Timeout time.Duration `json:",omitempty"` // of Run; 0 means none
	Path    string        `json:",omitempty"`
	Data    []byte        `json:",omitempty"`
	Offset  int64         `json:",omitempty"`
	Append  bool          `json:",omitempty"`
	Mode    fs.FileMode   `json:",omitempty"` // of a file that Write makes; 0 means 0644
}

// Reply answers the Request with the same ID. A Reply with a BootID answers none: it says that a boot is ready.
type Reply struct {
	ID     uint64
	BootID string `json:",omitempty"`
	Err    string `json:",omitempty"`
	Exit   int    `json:",omitempty"` // of Run; 128 plus the number of the signal that ended it
	Stdout []byte `json:",omitempty"`
	Stderr []byte `json:",omitempty"`
	Data   []byte `json:",omitempty"` // of Read; empty at the end of the file
}
