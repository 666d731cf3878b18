package netconsole

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestIdentity(t *testing.T) {
	tests := []struct {
		name   string
		fields []Field
		want   Identity
	}{
		{"no userdata", nil, Identity{}},
		{"all of it, among other keys", []Field{{"DEVICE", "n2"}, {"instance", "i-0abc"}, {"boot", "7f3c"}, {"gasp", "c2Vj"}, {"cpu", "3"}},
			Identity{Instance: "i-0abc", Boot: "7f3c", Secret: "c2Vj"}},
		{"a task that calls itself like a boot", []Field{{"boot", "7f3c"}, {"taskname", "x"}, {"boot", "forged"}}, Identity{Boot: "7f3c"}},
		{"a gap behind it", []Field{{"boot", "7f3c"}, {Value: Gap}}, Identity{Boot: "7f3c"}},
		{"a gap before it", []Field{{"instance", "i-0abc"}, {Value: Gap}, {"boot", "7f3c"}}, Identity{Instance: "i-0abc"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := (&Record{Fields: tt.fields}).Identity()
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("identity (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFacility(t *testing.T) {
	tests := []struct {
		name            string
		record          Record
		facility, level int
		kernel          bool
	}{
		{"a kernel emergency", Record{Extended: true, Prefix: 0}, 0, 0, true},
		{"a kernel debug line", Record{Extended: true, Prefix: 7}, 0, 7, true},
		{"the lowest that /dev/kmsg can write", Record{Extended: true, Prefix: 8}, 1, 0, false},
		{"the basic format", Record{Prefix: -1}, -1, -1, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := &tt.record
			if r.Facility() != tt.facility || r.Level() != tt.level || r.FromKernel() != tt.kernel {
				t.Errorf("facility %d level %d kernel %v, want %d %d %v", r.Facility(), r.Level(), r.FromKernel(), tt.facility, tt.level, tt.kernel)
			}
		})
	}
}

// TestSecretNeverPrints tries every way in which records end up in logs.
func TestSecretNeverPrints(t *testing.T) {
	const secret = "c2VjcmV0c2VjcmV0c2VjcmV0"
	r := Record{Text: []byte("x"), Fields: []Field{{KeyBoot, "7f3c"}, {KeySecret, secret}}}
	id := r.Identity()
	var log bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&log, nil))
	logger.Info("x", "record", r, "identity", id, "gasp", id.Secret, "field", r.Fields[1])
	logger = slog.New(slog.NewTextHandler(&log, nil))
	logger.Info("x", "record", r, "identity", id, "gasp", id.Secret, "field", r.Fields[1])
	encoded, err := json.Marshal([]any{id, r})
	if err != nil {
		t.Fatal(err)
	}
	for _, out := range []string{
		fmt.Sprint(r), fmt.Sprintf("%v %+v %#v %s %q", r, r, r, r.Fields, r.Fields), fmt.Sprintf("%v %+v %#v", &r, &r, &r),
		fmt.Sprint(id), fmt.Sprintf("%+v %#v %s %q", id, id, id, id.Secret), string(encoded), log.String(),
	} {
		if strings.Contains(out, secret) {
			t.Errorf("the secret is in %q", out)
		}
		if !strings.Contains(out, "(gasp)") {
			t.Errorf("nothing tells that there is a secret in %q", out)
		}
	}
	if got := id.Secret.Sum(); len(got) != 64 || strings.Contains(got, secret) {
		t.Errorf("sum %q", got)
	}
	if got := Secret("").Sum() + Secret("").String(); got != "" {
		t.Errorf("no secret prints as %q", got)
	}
}
