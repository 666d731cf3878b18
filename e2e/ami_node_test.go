//go:build e2e

package e2e

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"mime/multipart"
	"net"
	"net/http"
	"net/netip"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lastgasp/lastgasp/e2e/cloud"
	"github.com/lastgasp/lastgasp/e2e/cloud/imds"
	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/e2e/story"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

// amiNode is a running EC2 instance.
type amiNode struct {
	story.Node
	instance imds.Instance
	former   *former
	refused  *atomic.Bool  // the metadata service
	spot     *atomic.Int64 // when EC2 takes the instance back, as announced: Unix seconds; 0: it has announced nothing
}

// bootSpec says which instance to boot.
type bootSpec struct {
	name     string // of the Node; at most 11 bytes
	ip       netip.Addr
	disk     *lab.Disk
	instance string   // default: made from ip
	userData []byte   // nil: what makes it a node of the world
	append   []string // to the kernel's command line
	reboot   bool     // it boots again after a reset
}

// boot launches an instance and waits until it has booted.
func (a *amiWorld) boot(t *testing.T, spec bootSpec) *amiNode {
	t.Helper()
	ip := spec.ip.As4()
	n := &amiNode{
		former: a.former, refused: new(atomic.Bool), spot: new(atomic.Int64),
		instance: imds.Instance{
			ID: cmp.Or(spec.instance, fmt.Sprintf("i-%016x0", ip[3])), Type: "m7i.large", Image: "ami-0123456789abcdef0", Account: "123456789012",
			Region: region, ZoneName: zone, ZoneID: zoneID, Hostname: spec.name, Started: time.Now(), UserData: spec.userData,
			Interfaces: []imds.Interface{{
				MAC: net.HardwareAddr{2, 0, 0, ip[1], ip[2], ip[3]}, IPv4: []netip.Addr{spec.ip}, Subnet4: lab.GuestAddr.Masked(),
			}},
		},
	}
	n.Name, n.Namespace = spec.name, spec.name
	if spec.userData == nil {
		n.instance.UserData = a.userData(t, n)
	}
	begin := time.Now()
	vm, err := cloud.Launch(t.Context(), t, cloud.MachineSpec{
		Net: a.Net, Name: spec.name, Disk: spec.disk, Append: spec.append, Reboot: spec.reboot,
		Metadata: &imds.Service{
			Instance: n.instance,
			Credentials: func() (imds.Credentials, bool) {
				return imds.Credentials{Role: "node", AccessKeyID: "ASIAEXAMPLE", SecretKey: "s", Token: "t", Expires: time.Now().Add(time.Hour)}, true
			},
			Fault: func(w http.ResponseWriter, r *http.Request) bool {
				switch {
				case n.refused.Load():
					http.Error(w, "403 - Forbidden", http.StatusForbidden)
				case n.spot.Load() != 0 && r.URL.Path == "/latest/meta-data/spot/instance-action":
					fmt.Fprintf(w, `{"action": "terminate", "time": %q}`, time.Unix(n.spot.Load(), 0).UTC().Format(time.RFC3339))
				default:
					return false
				}
				return true
			},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	n.VM, n.BootID = vm, vm.BootID()
	_, state := n.try(t, "systemctl is-system-running --wait")
	t.Logf("%s after %.0f s", state, time.Since(begin).Seconds())
	return n
}

// userData is the user-data of a launch template for a cluster's nodes, with a part for each program that reads it. Ours is
// what `lastgasp-configurator user-data` prints.
func (a *amiWorld) userData(t *testing.T, n *amiNode) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), a.Program("lastgasp-configurator"), "user-data")
	cmd.Env = append(os.Environ(), "LASTGASP_CONFIG=/dev/null", cmp.Or(a.endpoint, "LASTGASP_ENDPOINT_SSM=/lastgasp/{az-id}/endpoint,/lastgasp/endpoint"))
	ours, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := a.Join(t.Context(), n.Name)
	if err != nil {
		t.Fatal(err)
	}
	files["/etc/kubernetes/kubelet.env"] = fmt.Appendf(nil, "NAME=%s\nIP=%s\nPROVIDER_ID=aws:///%s/%s\n",
		n.Name, n.instance.Interfaces[0].IPv4[0], zone, n.instance.ID)
	var join strings.Builder
	join.WriteString("#cloud-boothook\n#!/bin/sh\nmkdir -p /etc/kubernetes/manifests\n")
	for _, path := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(&join, "mkdir -p %s\nbase64 -d >%s <<E\n%s\nE\n", filepath.Dir(path), path, base64.StdEncoding.EncodeToString(files[path]))
	}

	var body bytes.Buffer
	parts := multipart.NewWriter(&body)
	for _, part := range []struct{ kind, text string }{{"cloud-config", string(ours)}, {"cloud-boothook", join.String()}} {
		w, err := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {"text/" + part.kind}})
		if err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(part.text)) // cannot fail: it is a buffer
	}
	if err := parts.Close(); err != nil {
		t.Fatal(err)
	}
	message := fmt.Appendf(nil, "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=%q\r\n\r\n%s", parts.Boundary(), body.Bytes())
	if len(message) > 16<<10 {
		t.Fatalf("user-data has %d bytes, more than EC2 takes", len(message))
	}
	return message
}

// buildDebs builds our packages as `make package` does, and returns their paths.
func buildDebs(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "../packaging/build", dir)
	cmd.Env = append(os.Environ(), "ARCHES=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the packages: %v\n%s", err, out)
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 2 {
		t.Fatalf("built %q: %v", debs, err)
	}
	return debs
}

// try runs a script in the machine and returns its exit code and output.
func (n *amiNode) try(t *testing.T, script string) (exit int, said string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*busy)
	defer cancel()
	r, err := n.VM.Run(ctx, "sh", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	return r.Exit, strings.TrimSpace(r.Stdout + r.Stderr)
}

// sh is try for a script that must succeed.
func (n *amiNode) sh(t *testing.T, script string) string {
	t.Helper()
	exit, said := n.try(t, script)
	if exit != 0 {
		_, journal := n.try(t, "journalctl --no-hostname -b -u 'lastgasp-*' | tail -n40")
		t.Fatalf("%q ended with %d: %s\n%s", script, exit, said, journal)
	}
	return said
}

// isCanary reports whether a record is a canary of this machine, sent from its own address.
func (n *amiNode) isCanary(r heardRecord) bool {
	canary, ok := netconsole.ParseCanary(r.Text)
	return ok && canary.Instance == n.instance.ID && canary.Boot == n.BootID && r.Source.Addr() == n.instance.Interfaces[0].IPv4[0]
}

// wantHealthy checks that the boot did what user-data says, and that nothing else is wrong.
func (n *amiNode) wantHealthy(t *testing.T) {
	t.Helper()
	if state := n.sh(t, "systemctl is-system-running || systemctl --failed --plain --no-legend"); state != "running" {
		t.Errorf("the system is not running but %s", state)
	}
	if platform := n.sh(t, "cloud-id"); platform != "aws" {
		t.Errorf("cloud-init takes this for %s", platform)
	}
	// The listener's package is in the image for its units' sake.
	n.sh(t, "systemctl is-active lastgasp-configurator lastgasp-configurator-watch lastgasp-listener.socket lastgasp-listener kubelet")
	n.former.await(t, "the canary of the boot", n.isCanary)
	t.Logf("status:\n%s", n.sh(t, "lastgasp-configurator status")) // fails unless covered

	journal := n.sh(t, "journalctl --sync; journalctl --no-hostname -b -o short-monotonic")
	for line := range strings.Lines(journal) {
		for _, bad := range []string{"ordering cycle", "SIGSYS", "status=31", "bytes leftover after parsing"} {
			if strings.Contains(line, bad) {
				t.Errorf("the journal has: %s", line)
			}
		}
		if strings.Contains(line, "lastgasp") && (strings.Contains(line, "not permitted") || strings.Contains(line, "denied")) {
			t.Errorf("the journal has: %s", line)
		}
	}
	began, armed := n.monotonic(t, "kubelet", "InactiveExit"), n.monotonic(t, "lastgasp-configurator", "ActiveEnter")
	if began < armed || armed == 0 {
		t.Errorf("the kubelet was started %v into the boot, and it was armed at %v", began, armed)
	}
	t.Logf("armed %v into the boot, of which it took %v", armed, armed-n.monotonic(t, "lastgasp-configurator", "InactiveExit"))
}

// monotonic returns when a property of a service last changed, as time since boot.
func (n *amiNode) monotonic(t *testing.T, service, change string) time.Duration {
	t.Helper()
	us, err := strconv.ParseInt(n.sh(t, "systemctl show --value -p "+change+"TimestampMonotonic "+service), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.Duration(us) * time.Microsecond
}

// wantUnharmed checks that the machine does its work, whatever else is wrong.
func (n *amiNode) wantUnharmed(t *testing.T) {
	t.Helper()
	if state := n.sh(t, "systemctl is-active multi-user.target; systemctl list-jobs --no-legend"); state != "active" && state != "active\nNo jobs running." {
		t.Errorf("multi-user.target is %s", state)
	}
}

// wantStatus checks that `systemctl status` contains all of these.
func (n *amiNode) wantStatus(t *testing.T, says ...string) {
	t.Helper()
	_, status := n.try(t, "journalctl --sync; systemctl status --no-pager --full lastgasp-configurator")
	for _, want := range says {
		if !strings.Contains(status, want) {
			t.Errorf("systemctl status does not say %q:\n%s", want, status)
		}
	}
}
