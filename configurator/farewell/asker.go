package farewell

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/lastgasp/lastgasp/configurator/machine"
	"github.com/lastgasp/lastgasp/listener/lazyregexp"
)

// asker is who asked for the end of the boot.
type asker struct {
	user    string // login user, empty if it was no person's session
	command string // name of the process
	sudo    bool
	unit    string // systemd unit of the process, or the slice of its pod; empty if a person asked
}

// maxAncestors bounds the walk from a process to the sudo that it runs below.
const maxAncestors = 8

// noLogin is the login uid of what no person has started: (uid_t)-1 (kernel/audit.c).
const noLogin = "4294967295"

// userSlice is the control group of a user's sessions (pam_systemd(8)).
var userSlice = lazyregexp.New(`(?:^|/)user-([0-9]+)\.slice(?:/|$)`)

// logsIn are the units of daemons that log a user in for each job (pam_loginuid(8)): nobody sits there.
var logsIn = lazyregexp.New(`^(anacron|cron|crond|cronie|atd)\.service$`)

// askerOf reads who runs a process. What cannot be read is left empty: the process may be gone.
func askerOf(root machine.Root, pid uint32) asker {
	cgroup := cgroupOf(file(root, pid, "cgroup"))
	a := asker{command: file(root, pid, "comm")}
	uid := file(root, pid, "loginuid")
	if m := userSlice.FindStringSubmatch(cgroup); (uid == "" || uid == noLogin) && m != nil {
		uid = m[1] // a kernel without audit
	}
	if uid != "" && uid != noLogin {
		a.user = userName(root, uid)
	}
	if unit := unitOf(cgroup); a.user == "" || logsIn.MatchString(unit) {
		a.unit = unit
	}
	for range maxAncestors {
		if pid = parentOf(file(root, pid, "stat")); pid <= 1 {
			break
		}
		if file(root, pid, "comm") == "sudo" {
			a.sudo = true
			break
		}
	}
	return a
}

func file(root machine.Root, pid uint32, name string) string {
	return root.Text(fmt.Sprintf("proc/%d/%s", pid, name))
}

// cgroupOf is the path of a process in the hierarchy that systemd manages: the unified one or name=systemd (cgroups(7)). If
// there are both, the process is in the root of the one that systemd does not use.
func cgroupOf(text string) string {
	for line := range strings.Lines(text) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, group, _ := strings.Cut(rest, ":")
		if (controllers == "" || controllers == "name=systemd") && group != "/" {
			return group
		}
	}
	return ""
}

// unitOf names the slice of a pod, or the innermost service or scope of a control group.
func unitOf(cgroup string) string {
	unit := ""
	for _, name := range strings.Split(cgroup, "/") {
		switch {
		case strings.HasPrefix(name, "kubepods-") && strings.Contains(name, "-pod"), strings.HasPrefix(name, "pod") && strings.Contains(cgroup, "/kubepods"):
			return name
		case path.Ext(name) == ".service", path.Ext(name) == ".scope":
			unit = name
		}
	}
	return unit
}

// parentOf reads the parent from /proc/PID/stat, 0 if it is not there. The name, in parentheses, may contain anything.
func parentOf(stat string) uint32 {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0
	}
	pid, _ := strconv.ParseUint(fields[1], 10, 32)
	return uint32(pid)
}

// userName looks a uid up in /etc/passwd. Users of a directory service are not there, and are named by their uid.
func userName(root machine.Root, uid string) string {
	for line := range strings.Lines(root.Text("etc/passwd")) {
		if f := strings.Split(line, ":"); len(f) > 2 && f[2] == uid {
			return f[0]
		}
	}
	return "uid-" + uid
}
