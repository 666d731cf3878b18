package lab

import "os/exec"

// Daemon is one of our programs under test, running on this machine.
type Daemon struct{ p *process }

// StartDaemon starts cmd, appending its output to the file log. It is killed when s ends.
func StartDaemon(s Scope, name, log string, cmd *exec.Cmd) (*Daemon, error) {
	p, err := startProcess(name, log, cmd)
	if err != nil {
		return nil, err
	}
	s.Cleanup(p.kill)
	return &Daemon{p}, nil
}

// PID is its process id.
func (d *Daemon) PID() int { return d.p.cmd.Process.Pid } // `ip netns exec` becomes the program

// Kill ends it with SIGKILL and waits until it is gone. Killing it twice is harmless.
func (d *Daemon) Kill() { d.p.kill() }

// Died returns nil while it runs, and then how it ended, with the last lines of its log.
func (d *Daemon) Died() error { return d.p.died() }
