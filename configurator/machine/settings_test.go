package machine

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWantedSettings(t *testing.T) {
	old, nbcon := goodFacts, goodFacts
	nbcon.Kernel = "7.2.13"
	unmuted := nbcon
	unmuted.Unmuted = true
	crash := goodFacts
	crash.Kdump = true
	ten, five := 10, 5
	for _, tt := range []struct {
		name    string
		panic   Panic
		facts   Facts
		kubelet Kubelet
		want    []Setting
	}{
		{name: "nothing is touched unless asked for", facts: nbcon},
		{name: "hold on a kernel that is mute otherwise", panic: Panic{Hold: true}, facts: nbcon,
			want: []Setting{{File: panicFile, Set: "0"}}},
		{name: "hold beside a kubelet that sets its own value at its start", panic: Panic{Hold: true}, facts: nbcon, kubelet: KubeletSets,
			want: []Setting{{File: panicFile, Set: "0"}}},
		{name: "hold would keep a kubelet with protectKernelDefaults from starting", panic: Panic{Hold: true}, facts: nbcon, kubelet: KubeletProtects},
		{name: "hold waits for a kubelet that may turn out to be such", panic: Panic{Hold: true}, facts: nbcon, kubelet: KubeletExpected},
		{name: "a timeout that such a kubelet asks for", panic: Panic{Timeout: &ten}, facts: old, kubelet: KubeletProtects,
			want: []Setting{{File: panicFile, Set: "10"}}},
		{name: "a timeout that it does not", panic: Panic{Timeout: &five}, facts: old, kubelet: KubeletProtects},
		{name: "hold leaves a kernel alone that our module makes speak", panic: Panic{Hold: true}, facts: unmuted},
		{name: "hold leaves kernels below 7.0 alone", panic: Panic{Hold: true}, facts: old},
		{name: "a timeout below 7.0", panic: Panic{Timeout: &ten}, facts: old,
			want: []Setting{{File: panicFile, Set: "10"}}},
		{name: "a timeout would make 7.0 mute", panic: Panic{Timeout: &ten}, facts: nbcon},
		{name: "notifiers where a crash kernel is loaded", panic: Panic{KdumpNotifiers: true}, facts: crash,
			want: []Setting{{File: kdumpNotifiersFile, Set: "Y"}}},
		{name: "no notifiers without a crash kernel", panic: Panic{KdumpNotifiers: true}, facts: old},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, PanicSettings(tt.panic, tt.facts, tt.kubelet)); diff != "" {
				t.Errorf("settings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSettingsAreKeptAndPutBack(t *testing.T) {
	hold := []Setting{{File: panicFile, Set: "0"}}
	type step struct {
		name  string
		write string // by somebody else, before
		want  []Setting
		value string // after
	}
	for _, tt := range []struct {
		name  string
		steps []step
	}{
		{"set and restored", []step{
			{name: "set", want: hold, value: "0"},
			{name: "again", want: hold, value: "0"},
			{name: "restore", value: "10"},
		}},
		{"held against the kubelet, whose value is restored", []step{
			{name: "set", want: hold, value: "0"},
			{name: "the kubelet starts", write: "30", want: hold, value: "0"},
			{name: "restore", value: "30"},
		}},
		{"what somebody else changed since is theirs", []step{
			{name: "set", want: hold, value: "0"},
			{name: "restore", write: "5", value: "5"},
		}},
		{"what was right already is not ours to restore", []step{
			{name: "set", write: "0", want: hold, value: "0"},
			{name: "restore", write: "20", value: "20"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			for _, s := range tt.steps {
				if s.write != "" {
					w.write(t, panicFile, s.write)
				}
				if _, err := w.root.ApplySettings(s.want); err != nil {
					t.Fatalf("%s: %v", s.name, err)
				}
				if got := w.root.Text(panicFile); got != s.value {
					t.Fatalf("%s: kernel.panic is %s, want %s", s.name, got, s.value)
				}
			}
			if left, err := w.root.Settings(); err != nil || len(left) > 0 {
				t.Errorf("still counted as changed: %v, %v", left, err)
			}
		})
	}
}

// TestASettingThatCannotBeChanged: the others are, and it does not count as changed.
func TestASettingThatCannotBeChanged(t *testing.T) {
	w := newWorld(t)
	const refused, gone = "sys/class/net/ens5/queues/tx-0/byte_queue_limits/limit_min", "sys/class/net/ens6/queues/tx-0/byte_queue_limits/limit_min"
	if err := os.MkdirAll(w.root.Path(refused), 0o755); err != nil { // nobody can write to a directory
		t.Fatal(err)
	}
	_, err := w.root.ApplySettings([]Setting{{File: refused, Set: "1", Link: 2}, {File: gone, Set: "1", Link: 3}, {File: panicFile, Set: "0"}})
	if err == nil || strings.Count(err.Error(), "\n") > 0 || !strings.HasSuffix(err.Error(), "; set queues: false to do without") {
		t.Errorf("error %v", err)
	}
	list, err := w.root.Settings()
	if got := Summary(list); err != nil || len(got) != 1 || got[0] != "/proc/sys/kernel/panic=0 (was 10)" || w.root.Text(panicFile) != "0" {
		t.Errorf("changed: %v, %v", got, err)
	}
}
