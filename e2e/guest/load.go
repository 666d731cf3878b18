package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

// load writes lines into the kernel log, numbered from 0, at the rate of its first argument or as fast as the machine can,
// until the file of its second argument exists. Then it prints how many it wrote and in how many seconds.
func load(args []string) error {
	if len(args) != 2 {
		return errors.New("usage: load LINES-A-SECOND STOP-FILE")
	}
	rate, err := strconv.Atoi(args[0])
	if err != nil || rate <= 0 {
		return fmt.Errorf("read the number of lines a second: %q is not a number", args[0])
	}
	kmsg, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer kmsg.Close()
	start := time.Now()
	for n := 0; ; n++ {
		if n%100 == 0 {
			if _, err := os.Stat(args[1]); err == nil {
				fmt.Println(n, time.Since(start).Seconds())
				return nil
			}
		}
		if ahead := time.Duration(n)*time.Second/time.Duration(rate) - time.Since(start); ahead > time.Millisecond {
			time.Sleep(ahead)
		}
		if _, err := fmt.Fprintf(kmsg, "<6>load %d\n", n); err != nil { // one write(2) is one record
			return fmt.Errorf("write line %d: %w", n, err)
		}
	}
}
