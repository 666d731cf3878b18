package detect

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// canaryLine is a canary of that boot as a console prints it.
func canaryLine(uptime float64, boot string, panicOnOops bool) string {
	c := netconsole.Canary{
		Nonce: strings.Repeat("0", 32), Instance: "i-0123456789abcdef0", Boot: boot, Facts: netconsole.Facts{PanicOnOops: panicOnOops},
	}
	return fmt.Sprintf("[%12.6f] %s\n", uptime, c.Line())
}

func readLog(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", "logs", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestReadBootLogs(t *testing.T) {
	var (
		panics = readLog(t, "6.12-null-deref-panic5.log")
		oops   = readLog(t, "6.12-null-deref-survived.log")
		line   = func(boot string) string { return canaryLine(2, boot, false) }
		banner = "[    0.000000] Linux version 6.12.0 (builder) #1 SMP\n"
	)
	const title = "kernel NULL pointer dereference in store"
	for _, tt := range []struct {
		name, text string
		want       []string // boot, and the title of its death
	}{
		{"nothing", "", nil},
		{"a console that ends in a panic", banner + line("boot-a") + panics, []string{"boot-a: " + title}},
		{"without the boot's id", panics, []string{": " + title}},
		{"a panic, and firmware behind it", line("boot-a") + panics + "\nSeaBIOS (version 1.16.2)\r\n\nGRUB loading.\n", []string{"boot-a: " + title}},
		{"a panic, and the next boot", line("boot-a") + panics + banner + line("boot-b"), []string{"boot-a: " + title, "boot-b: "}},
		{"a panic, and a quiet next boot", line("boot-a") + panics + line("boot-b"), []string{"boot-a: " + title, "boot-b: "}},
		{"a panic of the boot before", panics + banner, []string{": " + title, ": "}},
		{"a canary behind the panic: the kernel lives", line("boot-a") + panics + canaryLine(9, "boot-a", false), []string{"boot-a: "}},
		{"the kernel speaks of something else a minute later", line("boot-a") + panics + "[   90.000000] eth0: link up\n", []string{"boot-a: "}},
		{"an oops that is survived", line("boot-a") + oops, []string{"boot-a: "}},
		{"an oops of a kernel that panics on it", canaryLine(2, "boot-a", true) + oops, []string{"boot-a: " + title}},
		{"an oops of such a kernel, after a panic that it outlived",
			canaryLine(2, "boot-a", true) + "[    3.000000] Kernel panic - not syncing: x\n" + canaryLine(9, "boot-a", true) +
				"[   20.000000] BUG: kernel NULL pointer dereference, address: 0000000000000000\n[   20.000001] Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI\n" +
				"[   20.000002] RIP: 0010:store+0x1/0x2 [bar]\n", []string{"boot-a: " + title}},
		{"a program that writes to the console", line("boot-a") + strings.Repeat("Kernel panic - not syncing: x\n", 40), []string{"boot-a: "}},
		{"a program that writes to the console first", "Kernel panic - not syncing: x\n" + line("boot-a"), []string{"boot-a: "}},
		{"a kernel without time stamps", "Kernel panic - not syncing: sysrq triggered crash\n", []string{": sysrq triggered crash"}},
		{"a panic that userspace quotes", line("boot-a") + "[    7.000000] init: echo Kernel panic - not syncing: test\n", []string{"boot-a: "}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, l := range ReadBootLogs(&Config{}, tt.text, false) {
				got = append(got, l.Boot+": "+l.Death.Title)
				if dead := l.Death.Verdict == Dying; dead != (l.Death.Title != "") || dead && (!l.Death.Complete || len(l.Death.Trace) == 0 || l.Death.Authority != Text) {
					t.Errorf("death: %+v", l.Death)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("boots (-want +got):\n%s", diff)
			}
		})
	}
	if got := ReadBootLogs(&Config{}, line("boot-a")+oops, true); len(got) != 1 || got[0].Death.Title != title {
		t.Errorf("an oops that is known to be fatal: %+v", got)
	}
	survived := ReadBootLogs(&Config{}, line("boot-a")+oops, false)
	if len(survived) != 1 || survived[0].Survived.Title != title || survived[0].Uptime == 0 {
		t.Errorf("an oops that is survived: %+v", survived)
	}
	if got := ReadBootLogs(&Config{}, line("boot-a")+panics+canaryLine(9, "boot-a", false), false); len(got) != 1 || got[0].Survived.Title != title {
		t.Errorf("a panic that is outlived: %+v", got)
	}
	if got := ReadBootLogs(&Config{}, line("boot-a")+oops+"[   90.000000] Kernel panic - not syncing: x\n", false); len(got) != 1 || got[0].Survived.Title != "" || got[0].Uptime != 90*time.Second {
		t.Errorf("a death after an oops: %+v", got)
	}
}
