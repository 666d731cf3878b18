package configurator

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lastgasp/lastgasp/configurator/enroll"
	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/listener/netconsole"
)

func TestPin(t *testing.T) {
	const boot, secret = "5a2e4e5c-8a3e-4a3d-9d5b-0f5a5c1e7f11", netconsole.Secret("AAAAAAAAAAAAAAAAAAAAAA")
	pin := boot + ":" + secret.Sum()
	const stale = "the secret has changed since; check that lastgasp-configurator-watch.service is running, it writes the pin"
	for _, tt := range []struct {
		name   string
		secret string // file
		state  string // file, empty: none
		pin    string
		want   *enroll.State
	}{
		{name: "before anything has run"},
		{name: "a secret that nobody has pinned", secret: boot + " " + string(secret), pin: pin},
		{name: "a secret of another boot", secret: "00000000-8a3e-4a3d-9d5b-0f5a5c1e7f11 " + string(secret)},
		{name: "enrolled", secret: boot + " " + string(secret), pin: pin,
			state: `{"enrolled":true,"node":"node-1","pin":"` + pin + `"}`, want: &enroll.State{Enrolled: true, Node: "node-1", Pin: pin}},
		{name: "enrolled with the secret of a former installation", secret: boot + " " + string(secret), pin: pin,
			state: `{"enrolled":true,"claimed":true,"node":"node-1","pin":"` + boot + `:a"}`,
			want:  &enroll.State{Node: "node-1", Pin: boot + ":a", Why: stale}},
		{name: "not a node", secret: boot + " " + string(secret), pin: pin,
			state: `{"enrolled":false,"why":"no kubeconfig"}`, want: &enroll.State{Why: "no kubeconfig"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := machine.Root(t.TempDir())
			for path, text := range map[string]string{
				"proc/sys/kernel/random/boot_id": boot + "\n", "run/lastgasp/gasp": tt.secret + "\n", "run/lastgasp/enroll.json": tt.state,
			} {
				if text == "" || text == "\n" {
					continue
				}
				if err := os.MkdirAll(filepath.Dir(root.Path(path)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(root.Path(path), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := Pin(root)
			if err != nil || got.String() != tt.pin {
				t.Errorf("pin %q, %v; want %q", got, err, tt.pin)
			}
			s, err := enrolment(root)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, s); diff != "" {
				t.Errorf("enrolment (-want +got):\n%s", diff)
			}
		})
	}
}

func TestStatusSaysHowEnrolmentStands(t *testing.T) {
	s := newStatus(up, goodFacts, nil, nil, nil, nil)
	s.Enrolment = &enroll.State{Enrolled: true, Node: "node-1", Kubeconfig: "/etc/kubernetes/kubelet.conf"}
	var b strings.Builder
	if err := s.WriteText(&b, up); err != nil {
		t.Fatal(err)
	}
	if want := "\nenrolled  as node-1, with /etc/kubernetes/kubelet.conf\n"; !strings.Contains(b.String(), want) {
		t.Errorf("%q is not in\n%s", want, b.String())
	}
}
