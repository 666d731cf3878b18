package configurator

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/lastgasp/lastgasp/configurator/configfs"
)

func TestBootParam(t *testing.T) {
	var many []configfs.Spec
	for i := range 5 {
		s := specTo(fmt.Sprintf("10.0.%d.10:6666", i), gatewayMAC)
		s.LocalPort = 6665
		many = append(many, s)
	}
	old := many[0]
	old.Release = false
	const one = "+r6665@10.0.1.5/ens5,6666@10.0.0.10/02:00:00:00:00:01"
	for _, tt := range []struct {
		name  string
		specs []configfs.Spec
		want  string
		err   string
	}{
		{"one", many[:1], one, ""},
		{"a kernel without release", []configfs.Spec{old}, strings.Replace(one, "+r", "+", 1), ""},
		{"two", many[:2], one + ";" + strings.Replace(one, "10.0.0.10", "10.0.1.10", 1), ""},
		{"as many as fit", many, "", "4 of 5 targets fit into the 255 bytes"},
		{"none", nil, "", "no target can be resolved"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := BootParam(tt.specs)
			if tt.want != "" && got != tt.want {
				t.Errorf("%q, want %q", got, tt.want)
			}
			if (err != nil) != (tt.err != "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			if len(got) > maxParam {
				t.Errorf("%d bytes", len(got))
			}
		})
	}
}

// To GRUB's shell a bare semicolon ends the command; the kernel knows double quotes, and no single ones.
func TestCommandLine(t *testing.T) {
	const want = `netconsole.netconsole="+r6665@fd00::5/ens5,6666@fd00::10/02:00:00:00:00:01;+r6665@10.0.1.5/ens5,6666@10.0.0.10/02:00:00:00:00:01"`
	v6, v4 := specTo("[fd00::10]:6666", gatewayMAC), specTo("10.0.0.10:6666", gatewayMAC)
	v6.LocalIP, v6.LocalPort, v4.LocalPort = netip.MustParseAddr("fd00::5"), 6665, 6665
	param, err := BootParam([]configfs.Spec{v6, v4})
	if err != nil {
		t.Fatal(err)
	}
	if got := CommandLine(param); got != want {
		t.Errorf("%s, want\n%s", got, want)
	}
}
