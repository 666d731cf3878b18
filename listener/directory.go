package listener

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/lastgasp/lastgasp/listener/atomicfile"
	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

const (
	// directoryIntake is how many incidents of each class a Directory takes before it has written any. What it does not take
	// waits with its source (listener/receive).
	directoryIntake = 64
	// sameFor is how far apart two emissions from one source may be and still belong to one incident. A machine has to boot
	// before it can die again.
	sameFor = 30 * time.Second
	// writeAgain and writeAgainAtMost are the first and the longest pause after a file could not be written.
	writeAgain, writeAgainAtMost = 100 * time.Millisecond, 5 * time.Second
)

// Keep bounds what a Directory keeps, deaths and reports each: how many files, and for how long.
type Keep struct {
	Records int
	For     time.Duration
}

// Directory takes incidents where there is no cluster. Each becomes one JSON file, written when it is first heard and
// replaced when it is complete. Nothing else is done about it. Reports never push out deaths, and files of one address never
// push out those of others.
type Directory struct {
	path    string
	keep    Keep
	log     *slog.Logger
	now     func() time.Time
	deaths  chan detect.Incident
	reports chan detect.Incident
	index   index

	mu        sync.Mutex
	failed    error     // of the latest attempt to write
	lastDeath time.Time // that is or was on record
	farewells policy.Limiter
}

// NewDirectory returns a Directory that writes into path, which Run creates if it is not there. A nil log discards.
func NewDirectory(path string, keep Keep, log *slog.Logger) *Directory {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Directory{
		path: path, keep: keep, log: log, now: time.Now,
		deaths: make(chan detect.Incident, directoryIntake), reports: make(chan detect.Incident, directoryIntake),
		farewells: policy.Limiter{PerAddress: 4, Total: 10_000, Window: 10 * time.Minute},
	}
}

// Offer hands over an incident and never blocks. False means that there is no room: offer it again later.
func (d *Directory) Offer(inc detect.Incident) bool {
	to := d.deaths
	if inc.Verdict != detect.Dying {
		to = d.reports
	}
	select {
	case to <- inc:
		return true
	default:
		return false
	}
}

// Canary takes a canary and does nothing: without Nodes there is nothing to claim.
func (d *Directory) Canary(netip.Addr, netconsole.Identity, time.Time) bool { return true }

// Farewell logs a farewell: without Nodes there is nothing to annotate. Anybody can send them, so only a few are logged.
func (d *Directory) Farewell(src netip.Addr, y netconsole.Bye, at time.Time, _ bool) bool {
	d.mu.Lock()
	allowed := d.farewells.Allow(at, src)
	d.mu.Unlock()
	if !allowed {
		return true
	}
	d.log.Info("farewell", "source", src, "instance", y.Instance, "boot", y.Boot, "farewell", policy.FarewellOf(y, at).Text)
	return true
}

// Ready says why incidents cannot be written, nil if they can. It tries.
func (d *Directory) Ready() error {
	d.mu.Lock()
	failed := d.failed
	d.mu.Unlock()
	if failed != nil {
		return failed
	}
	tmp, err := os.CreateTemp(d.path, ".new-*")
	if err != nil {
		return fmt.Errorf("create record: %w", err)
	}
	return errors.Join(tmp.Close(), os.Remove(tmp.Name()))
}

// Run writes until ctx ends, and then what was offered before. A file that cannot be written is tried again; what still
// cannot be written at the end goes to the log.
func (d *Directory) Run(ctx context.Context) error {
	if err := os.MkdirAll(d.path, 0o750); err != nil {
		return fmt.Errorf("create records directory: %w", err)
	}
	if err := atomicfile.Clean(d.path, deathFile, reportFile); err != nil {
		return fmt.Errorf("clean records directory: %w", err)
	}
	if err := d.index.load(d.path); err != nil {
		return fmt.Errorf("read records directory: %w", err)
	}
	for _, name := range d.index.names[deathFile] {
		d.noteDeath(name)
	}
	files := map[finding]written{} // of incidents that may be emitted again, complete
	for {
		inc, ok := d.next(ctx)
		if !ok {
			return nil
		}
		maps.DeleteFunc(files, func(_ finding, f written) bool { return inc.Time.Sub(f.heard).Abs() >= sameFor })
		is := findingOf(inc)
		f, again := files[is]
		if !again {
			f = written{fileName(inc), inc.Time}
		}
		files[is] = f
		d.write(ctx, f.name, inc)
	}
}

// next is the incident to write next, a death if there is one; false when ctx has ended and there is none.
func (d *Directory) next(ctx context.Context) (inc detect.Incident, ok bool) {
	select {
	case inc = <-d.deaths:
		return inc, true
	default:
	}
	select {
	case inc = <-d.deaths:
		return inc, true
	case inc = <-d.reports:
		return inc, true
	case <-ctx.Done():
	}
	select {
	case inc = <-d.deaths:
		return inc, true
	case inc = <-d.reports:
		return inc, true
	default:
		return inc, false
	}
}

// finding is what makes two emissions, not far apart in time, one file. A kernel may have several faults at once, but an oops
// that ends in a panic is the same incident. What is sent from the same address without the secret is another.
type finding struct {
	src    netip.Addr
	boot   string
	secret netconsole.Secret
	code   string
}

type written struct {
	name  string
	heard time.Time
}

func findingOf(inc detect.Incident) finding {
	f := finding{src: inc.Source.Addr(), boot: inc.Identity.Boot, secret: inc.Identity.Secret}
	if inc.Verdict == detect.Sick {
		f.code = inc.Cause
	}
	return f
}

// Classes of files, as their names end.
const (
	deathFile  = ".death.json"
	reportFile = ".report.json"
)

// fileName sorts by time, names the address that the incident came from and its machine, and differs by cause.
func fileName(inc detect.Incident) string {
	class := reportFile
	if inc.Verdict == detect.Dying {
		class = deathFile
	}
	addr, id := inc.Source.Addr().String(), inc.Identity
	who := cmp.Or(id.Instance, addr)
	sum := sha256.Sum256([]byte(strings.Join([]string{inc.Source.String(), who, id.Boot, id.Secret.Sum(), inc.Cause}, "\n")))
	return inc.Time.UTC().Format(fileTime) + "_" + plain(addr) + "_" + plain(who) + "-" + hex.EncodeToString(sum[:6]) + class
}

// plain is s with a hyphen for everything but letters and digits.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' {
			return r
		}
		return '-'
	}, s)
}

// fileTime is how the name of a file begins.
const fileTime = "20060102T150405.000Z"

// entry is what a file holds.
type entry struct {
	Time        time.Time        `json:"time"`
	Source      netip.AddrPort   `json:"source"`
	Instance    string           `json:"instance,omitempty"`
	Boot        string           `json:"boot,omitempty"`
	Verdict     detect.Verdict   `json:"verdict"`
	Authority   detect.Authority `json:"authority"`
	Code        string           `json:"code"`
	Title       string           `json:"title"`
	Fingerprint string           `json:"fingerprint,omitempty"`
	Remedy      string           `json:"remedy,omitempty"`
	Release     string           `json:"release,omitempty"`
	Complete    bool             `json:"complete"`
	Trace       []string         `json:"trace"`
}

func newEntry(inc detect.Incident) entry {
	return entry{
		inc.Time.UTC(), inc.Source, inc.Identity.Instance, inc.Identity.Boot, inc.Verdict, inc.Authority, inc.Cause, inc.Title,
		inc.Fingerprint, inc.Remedy, inc.Release, inc.Complete, inc.Trace,
	}
}

// write writes one incident, again and again until the disk takes it or ctx ends.
func (d *Directory) write(ctx context.Context, name string, inc detect.Incident) {
	data, err := json.MarshalIndent(newEntry(inc), "", "  ")
	if err != nil {
		d.log.Error("incident not written", "file", name, "err", err)
		return
	}
	for pause := writeAgain; ; pause = min(2*pause, writeAgainAtMost) {
		err := d.store(name, append(data, '\n'))
		d.mu.Lock()
		d.failed = err
		d.mu.Unlock()
		if err == nil {
			title, _, _ := strings.Cut(inc.Title, "\n")
			d.log.Warn("recorded", "file", name, "source", inc.Source.String(), "code", inc.Cause, "title", title, "complete", inc.Complete)
			return
		}
		d.log.Error("incident not written, trying again", "file", name, "err", err)
		select {
		case <-ctx.Done():
			d.log.Error("incident not written before the end", "file", name, "err", err, "incident", string(data))
			return
		case <-time.After(pause):
		}
	}
}

// store writes data under name completely or not at all, and keeps the directory within its bounds. On a full disk older
// files make room: reports, and deaths of an address that has several.
func (d *Directory) store(name string, data []byte) error {
	for {
		err := atomicfile.Write(filepath.Join(d.path, name), data, 0o600)
		if err == nil {
			d.index.add(name)
			d.noteDeath(name)
			return d.prune()
		}
		victim, ok := d.index.leastMissed(name)
		if !errors.Is(err, syscall.ENOSPC) || !ok {
			return fmt.Errorf("write record: %w", err)
		}
		if err := d.remove(victim); err != nil {
			return err
		}
	}
}

// noteDeath remembers when the death in the file of that name happened, if it is the latest.
func (d *Directory) noteDeath(name string) {
	if !strings.HasSuffix(name, deathFile) {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if at, err := time.Parse(fileTime, name[:min(len(name), len(fileTime))]); err == nil && at.After(d.lastDeath) {
		d.lastDeath = at
	}
}

func (d *Directory) prune() error {
	expired := d.now().Add(-d.keep.For).UTC().Format(fileTime)
	for _, class := range [...]string{deathFile, reportFile} {
		for {
			victim, n := d.index.oldest(class)
			if n == 0 || n <= d.keep.Records && victim >= expired {
				break
			}
			if victim >= expired {
				victim = d.index.surplus(class)
			}
			if err := d.remove(victim); err != nil {
				return err
			}
		}
	}
	return nil
}

func (d *Directory) remove(name string) error {
	if err := os.Remove(filepath.Join(d.path, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove old record: %w", err)
	}
	d.index.remove(name)
	return nil
}
