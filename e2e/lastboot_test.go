//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/lastgasp/lastgasp/configurator/lastboot"
	"github.com/lastgasp/lastgasp/e2e/lab"
)

const ledgerFile = "/" + lastboot.LedgerFile

// TestLastBoot makes a kernel panic that netconsole does not send, because it reboots (7.0 and later). Its firmware keeps what pstore
// wrote, and the next boot finds out and tells a listener.
func TestLastBoot(t *testing.T) {
	g := newGuest(t, "7", lab.VMSpec{
		UEFI: true, Reboot: true, Modules: []string{"efi_pstore"}, Sysctls: map[string]string{"kernel.panic": "1"},
	})
	a := newFakeListener(t, g.net, lab.ListenerAddr.Addr())
	const config = "/etc/lastgasp/configurator.d/00-empty.yaml"
	g.write(t, config, fmt.Sprintf("endpoint: {static: [%q]}\ncanary: {timeout: 20s}\n", a))
	g.run(t, 0, "apply")
	if r := g.run(t, 0, "last-boot"); r.Stdout != "no previous boot of this machine is on record\n" {
		t.Errorf("in the first boot: %s", r.Stdout)
	}
	ledger, boot := g.read(t, ledgerFile), g.vm.BootID()
	a.forget()

	if err := g.vm.Crash(t.Context(), lab.CrashSysrq); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*busy)
	defer cancel()
	if err := g.vm.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	if heard, _ := a.recall(); strings.Contains(strings.Join(heard, "\n"), "Kernel panic") {
		t.Fatal("netconsole has sent the panic: this kernel proves nothing here")
	}
	for _, dir := range []string{"/var", "/var/lib", "/var/lib/lastgasp"} { // the guest has no disk
		if err := g.vm.Mkdir(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
	}
	g.write(t, ledgerFile, ledger)
	g.write(t, config, fmt.Sprintf("endpoint: {static: [%q]}\ncanary: {timeout: 20s}\n", a))

	r := g.run(t, 0, "last-boot")
	for _, want := range []string{
		"boot      " + boot + ", kernel " + g.kernel.Release + ", ",
		"cause     KernelPanic: sysrq triggered crash\nevidence  pstore\nlistener  has not acknowledged it\n",
		"Kernel panic - not syncing: sysrq triggered crash",
	} {
		if !strings.Contains(r.Stdout, want) {
			t.Errorf("%q is not in\n%s", want, r.Stdout)
		}
	}

	if err := g.vm.Start(t.Context(), "/usr/bin/lastgasp-configurator", "watch"); err != nil {
		t.Fatal(err)
	}
	var ending lastboot.Ending
	if err := within(t.Context(), busy, func() error {
		if len(a.deaths()) == 0 {
			return errors.New("no obituary has arrived")
		}
		r := g.run(t, 0, "last-boot", "-o", "json")
		if err := json.Unmarshal([]byte(r.Stdout), &ending); err != nil {
			return err
		}
		if ending.Acknowledged.IsZero() {
			return errors.New("it is not acknowledged")
		}
		return nil
	}); err != nil {
		t.Fatalf("%v; watch said:\n%s", err, g.read(t, lab.LogPath("lastgasp-configurator")))
	}
	deaths := a.deaths()
	if len(deaths) != 1 {
		t.Fatalf("%d obituaries arrived", len(deaths))
	}
	d := deaths[0]
	if d.Boot != boot || d.Cause != "KernelPanic" || d.Evidence != lastboot.Pstore || d.Kernel != g.kernel.Release ||
		!strings.Contains(string(d.Text), "lastgasp: canary v1 nonce=") || !strings.Contains(string(d.Text), "Kernel panic - not syncing: sysrq triggered crash") {
		t.Errorf("obituary of boot %s, cause %s, by %s, kernel %s:\n%s", d.Boot, d.Cause, d.Evidence, d.Kernel, d.Text)
	}
	eventually(t, "the store to be cleared", func() error {
		for _, entry := range ending.Entries {
			if _, err := g.vm.ReadFile(t.Context(), "/"+entry); err == nil {
				return fmt.Errorf("%s is still there", entry)
			}
		}
		return nil
	})
	t.Logf("%d entries of pstore, %d bytes of the old kernel's log", len(ending.Entries), len(d.Text))
}
