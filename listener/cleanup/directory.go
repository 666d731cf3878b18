package cleanup

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/listener/detect"
	"github.com/lastgasp/lastgasp/listener/netconsole"
	"github.com/lastgasp/lastgasp/listener/policy"
)

// directoryFiles bounds what a Directory keeps; the oldest go first.
const directoryFiles = 1000

// Directory is where incidents go without a cluster: each becomes one JSON file, written when it is first heard and
// replaced when it is complete. Nothing else happens to them.
type Directory struct {
	path   string
	log    *slog.Logger
	intake chan detect.Incident
}

// NewDirectory returns a Directory that writes into path, which Run creates if it is not there. A nil log discards.
func NewDirectory(path string, log *slog.Logger) *Directory {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Directory{path: path, log: log, intake: make(chan detect.Incident, intakeSize)}
}

// Offer hands over an incident and never blocks. False means that there is no room: offer it again later.
func (d *Directory) Offer(inc detect.Incident) bool {
	select {
	case d.intake <- inc:
		return true
	default:
		return false
	}
}

// Canary takes a canary and does nothing: without Nodes there is nothing to pin.
func (d *Directory) Canary(netip.Addr, netconsole.Identity, time.Time) bool { return true }

// Run writes until ctx ends, and then what was offered before. A file that cannot be written is tried again.
func (d *Directory) Run(ctx context.Context) error {
	if err := os.MkdirAll(d.path, 0o750); err != nil {
		return fmt.Errorf("create records directory: %w", err)
	}
	files := map[finding]file{} // of incidents that may come again, complete
	for {
		var inc detect.Incident
		select {
		case inc = <-d.intake:
		default:
			select {
			case inc = <-d.intake:
			case <-ctx.Done():
				return nil
			}
		}
		is := findingOf(inc)
		f, ok := files[is]
		if !ok || !speaksOf(inc, f.heard) {
			f = file{fileName(inc), inc.Time}
		}
		if len(files) >= heardSize {
			clear(files)
		}
		files[is] = f
		d.write(ctx, f.name, inc)
	}
}

// finding is what makes two emissions, not far apart in time, one file. A kernel has several troubles at once, but an
// oops may end in a panic and is then the same story.
type finding struct {
	key
	code string
}

type file struct {
	name  string
	heard time.Time
}

func findingOf(inc detect.Incident) finding {
	if inc.Verdict == detect.Sick {
		return finding{keyOf(inc), inc.Cause}
	}
	return finding{keyOf(inc), ""}
}

// fileName sorts by time and tells machines and troubles apart.
func fileName(inc detect.Incident) string {
	who := cmp.Or(inc.Identity.Instance, inc.Source.Addr().String())
	return inc.Time.UTC().Format("20060102T150405.000Z") + "-" + policy.DeathName(who, inc.Identity.Boot+"/"+inc.Cause) + ".json"
}

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

// write writes one incident, again and again until the disk takes it or ctx ends.
func (d *Directory) write(ctx context.Context, name string, inc detect.Incident) {
	data, err := json.MarshalIndent(entry{
		inc.Time.UTC(), inc.Source, inc.Identity.Instance, inc.Identity.Boot, inc.Verdict, inc.Authority, inc.Cause, inc.Title,
		inc.Fingerprint, inc.Remedy, inc.Release, inc.Complete, inc.Trace,
	}, "", "  ")
	if err != nil {
		d.log.Error("incident not written", "file", name, "err", err)
		return
	}
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		err := d.replace(name, append(data, '\n'))
		if err == nil {
			d.log.Info("recorded", "file", name, "source", inc.Source.String(), "code", inc.Cause, "title", policy.FirstLine(inc.Title),
				"complete", inc.Complete)
			return
		}
		d.log.Error("incident not written, trying again", "file", name, "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// replace puts data under name at once or not at all, and makes room for it.
func (d *Directory) replace(name string, data []byte) error {
	tmp, err := os.CreateTemp(d.path, ".new-*")
	if err != nil {
		return fmt.Errorf("create record: %w", err)
	}
	defer os.Remove(tmp.Name()) // gone already if all went well
	if _, err = tmp.Write(data); err == nil {
		err = tmp.Sync()
	}
	if closed := tmp.Close(); err == nil {
		err = closed
	}
	if err != nil {
		return fmt.Errorf("write record: %w", err)
	}
	if err := os.Rename(tmp.Name(), filepath.Join(d.path, name)); err != nil {
		return fmt.Errorf("name record: %w", err)
	}
	return d.prune()
}

// prune removes the oldest files beyond directoryFiles.
func (d *Directory) prune() error {
	list, err := os.ReadDir(d.path) // sorted by name, which begins with the time
	if err != nil {
		return fmt.Errorf("count records: %w", err)
	}
	list = slices.DeleteFunc(list, func(e os.DirEntry) bool {
		return !strings.HasSuffix(e.Name(), ".json") || strings.HasPrefix(e.Name(), ".")
	})
	for len(list) > directoryFiles {
		if err := os.Remove(filepath.Join(d.path, list[0].Name())); err != nil {
			return fmt.Errorf("remove old record: %w", err)
		}
		list = list[1:]
	}
	return nil
}
