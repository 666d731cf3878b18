// Command guest is the whole userland of a lab guest: process 1, the control server that it keeps alive, and the few
// programs that tests and the configurator expect to find, chosen by the name it is called by. On a system that has a
// userland of its own it is the control server alone, called agent.
package main

import (
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

func main() {
	log.SetFlags(0)
	name := filepath.Base(os.Args[0])
	log.SetPrefix("lab: " + name + ": ")
	var err error
	switch name {
	case "init":
		superviseForever()
	case "serve":
		if err = setUp(); err == nil {
			err = serve()
		}
	case "agent":
		err = serve()
	case "insmod":
		if len(os.Args) < 2 {
			log.Fatal("usage: insmod FILE [PARAMETER…]")
		}
		err = insmod(os.Args[1], strings.Join(os.Args[2:], " "))
	case "modprobe":
		err = modprobe(os.Args[1:])
	case "rmmod":
		err = rmmod(os.Args[1:])
	case "hog":
		err = hog(os.Args[1:])
	case "cat":
		_, err = io.Copy(os.Stdout, os.Stdin)
	case "env":
		for _, variable := range os.Environ() {
			fmt.Println(variable)
		}
	case "fault":
		fault(os.Args[1:])
	case "load":
		err = load(os.Args[1:])
	case "measure":
		err = measure(os.Args[1:])
	case "network":
		err = network(os.Args[1:])
	case "pods":
		err = pods(os.Args[1:])
	case "link":
		err = link(os.Args[1:])
	case "kdump":
		err = kdump(os.Args[1:])
	case "dmesg":
		err = dmesg()
	case "poweroff":
		err = powerOff()
	default:
		err = fmt.Errorf("nothing is called %s here", name)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// hog touches as many MiB as its argument says, and ends. Given a second argument, it joins that cgroup first.
func hog(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("usage: hog MIB [CGROUP]")
	}
	mib, err := strconv.Atoi(args[0])
	if err != nil {
		return fmt.Errorf("read the number of MiB: %w", err)
	}
	// The server has exempted itself and its children from the OOM killer.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("0"), 0); err != nil {
		return fmt.Errorf("come into the OOM killer's reach: %w", err)
	}
	if len(args) > 1 {
		if err := os.WriteFile(filepath.Join(args[1], "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("join a cgroup: %w", err)
		}
	}
	blocks := make([][]byte, mib)
	for i := range blocks {
		blocks[i] = make([]byte, 1<<20)
		for at := 0; at < len(blocks[i]); at += os.Getpagesize() {
			blocks[i][at] = 1
		}
	}
	fmt.Printf("touched %d MiB\n", len(blocks))
	return nil
}
