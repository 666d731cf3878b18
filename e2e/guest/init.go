package main

import (
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// superviseForever is process 1: it keeps the server running and reaps every orphan. It stays this small because the
// kernel panics when it ends, which happens only on SIGUSR1, for those who want to see just that.
func superviseForever() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	go func() {
		<-signals
		os.Exit(0)
	}()

	for {
		server, err := os.StartProcess("/init", []string{"serve"}, &os.ProcAttr{
			Env:   []string{"PATH=/sbin:/bin:/usr/sbin:/usr/bin", "HOME=/root"},
			Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		})
		if err != nil {
			log.Printf("start the server: %v", err)
			time.Sleep(time.Second)
			continue
		}
		for {
			var status syscall.WaitStatus
			pid, err := syscall.Wait4(-1, &status, 0, nil)
			if err == nil && pid == server.Pid {
				log.Printf("the server has ended: %v; starting another", status)
				break
			}
		}
	}
}
