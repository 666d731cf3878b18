package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lastgasp/lastgasp/e2e/guest/control"
)

// serve says that the machine is up, and then serves requests on the control port until the machine ends.
func serve() error {
	// The server must survive a test that runs the machine out of memory.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0); err != nil {
		return fmt.Errorf("leave the OOM killer's reach: %w", err)
	}
	port, err := openPort(control.Port())
	if err != nil {
		return err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Errorf("read the boot id: %w", err)
	}
	s := &server{port: port}
	// The other end may have been cut off in the middle of a line by a reset.
	if _, err := port.WriteString("\n"); err != nil {
		return fmt.Errorf("write to the control port: %w", err)
	}
	s.reply(control.Reply{BootID: strings.TrimSpace(string(boot))})
	log.Print("READY")

	for lines := bufio.NewReader(port); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("read from the control port: %w", err)
		}
		var r control.Request
		if err := json.Unmarshal(line, &r); err != nil {
			if len(bytes.TrimSpace(line)) > 0 {
				log.Printf("skip a line of %d bytes: %v", len(line), err)
			}
			continue
		}
		// Each request has its own goroutine: a program may run for long, and a crash never returns.
		go s.handle(r)
	}
}

// openPort opens a serial port for raw bytes.
func openPort(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	raw := &unix.Termios{Cflag: unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200, Ispeed: unix.B115200, Ospeed: unix.B115200}
	raw.Cc[unix.VMIN] = 1
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, raw); err != nil {
		return nil, fmt.Errorf("set %s to raw mode: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

type server struct {
	mu   sync.Mutex // one line at a time
	port *os.File
}

func (s *server) reply(r control.Reply) {
	line, err := json.Marshal(r)
	if err != nil {
		log.Printf("encode a reply: %v", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.port.Write(append(line, '\n')); err != nil {
		log.Printf("write a reply: %v", err)
	}
}

func (s *server) handle(r control.Request) {
	var answer control.Reply
	var err error
	switch r.Op {
	case control.Run:
		answer, err = runProgram(r)
	case control.Start:
		err = startProgram(r)
	case control.Read:
		answer.Data, err = readChunk(r)
	case control.Write:
		err = writeChunk(r)
	case control.Mkdir:
		err = os.Mkdir(r.Path, 0o755)
	case control.Remove:
		err = os.Remove(r.Path)
	case control.Crash:
		if err := crash(r.Argv); err != nil {
			log.Printf("crash: %v", err)
		}
		return
	default:
		err = fmt.Errorf("unknown request %q", r.Op)
	}
	answer.ID = r.ID
	if err != nil {
		answer.Err = err.Error()
	}
	s.reply(answer)
}

func command(ctx context.Context, r control.Request) (*exec.Cmd, error) {
	if len(r.Argv) == 0 {
		return nil, errors.New("nothing to run")
	}
	cmd := exec.CommandContext(ctx, r.Argv[0], r.Argv[1:]...)
	cmd.Env = append(os.Environ(), r.Env...)
	cmd.Stdin = bytes.NewReader(r.Stdin)
	return cmd, nil
}

func runProgram(r control.Request) (control.Reply, error) {
	ctx := context.Background()
	if r.Timeout > 0 {
		limited, cancel := context.WithTimeout(ctx, r.Timeout)
		defer cancel()
		ctx = limited
	}
	cmd, err := command(ctx, r)
	if err != nil {
		return control.Reply{}, err
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		return control.Reply{}, err
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	exit := status.ExitStatus()
	if status.Signaled() {
		exit = 128 + int(status.Signal())
	}
	return control.Reply{Exit: exit, Stdout: stdout.Bytes(), Stderr: stderr.Bytes()}, nil
}

func startProgram(r control.Request) error {
	cmd, err := command(context.Background(), r)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(r.Path), 0o755); err != nil {
		return err
	}
	output, err := os.OpenFile(r.Path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer output.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, output, output
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() {
		if err := cmd.Wait(); err != nil {
			log.Printf("%s has ended: %v", r.Argv[0], err)
		}
	}()
	return nil
}

func readChunk(r control.Request) ([]byte, error) {
	f, err := os.Open(r.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data := make([]byte, control.ChunkSize)
	n, err := f.ReadAt(data, r.Offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return data[:n], nil
}

func writeChunk(r control.Request) error {
	mode, flags := r.Mode, os.O_WRONLY|os.O_CREATE|os.O_TRUNC
	if mode == 0 {
		mode = 0o644
	}
	if r.Append {
		flags = os.O_WRONLY | os.O_APPEND
	}
	f, err := os.OpenFile(r.Path, flags, mode&fs.ModePerm)
	if err != nil {
		return err
	}
	_, err = f.Write(r.Data)
	return errors.Join(err, f.Close())
}
