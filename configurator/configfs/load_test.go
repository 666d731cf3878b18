package configfs

import (
	"strings"
	"testing"
)

func TestMendModprobe(t *testing.T) {
	const not = "modprobe: ERROR: could not insert 'netconsole': "
	for _, tt := range []struct {
		said   string
		locked bool
		want   string // contained
	}{
		{not + "Operation not permitted", false, "run modprobe netconsole as root"},
		{not + "Operation not permitted", true, "kernel.modules_disabled"},
		{"modprobe: ERROR: ../libkmod/libkmod-module.c:1047 command_do() Error running install command '/bin/false' for module netconsole: retcode 1", false,
			`"install netconsole"`},
		{`exec: "modprobe": executable file not found in $PATH`, false, "install kmod"},
		{not + "Invalid argument", false, `"options netconsole"`},
		{not + "Key was rejected by service", false, "Secure Boot"},
		{not + "Required key not available", false, "Secure Boot"},
	} {
		if got := mendModprobe("netconsole", tt.said, tt.locked); !strings.Contains(got, tt.want) {
			t.Errorf("%s, locked %t: %q, want %q in it", tt.said, tt.locked, got, tt.want)
		}
	}
	if got := mendModprobe("netconsole", not+"Exec format error", false); got != "" {
		t.Errorf("of what nobody knows it says %q", got)
	}
}
