package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/lastgasp/lastgasp/configurator"
	"github.com/lastgasp/lastgasp/configurator/configfs"
	"github.com/lastgasp/lastgasp/configurator/endpoint"
	"github.com/lastgasp/lastgasp/configurator/nexthop"
)

// Exit codes, documented in the help text and in README.md. They are an interface.
const (
	exitDone       = 0
	exitFailed     = 1 // or not acknowledged
	exitUsage      = 2 // or config
	exitUnresolved = 3
	exitCannot     = 4
)

// exit prints err, a line for each thing that is wrong, and returns the exit code. If several things are wrong, the one to
// fix first decides.
func (c *command) exit(err error) int {
	if err == nil {
		return exitDone
	}
	if !errors.Is(err, errSaid) {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintf(c.stderr, "lastgasp-configurator: %s\n", strings.TrimSpace(line))
		}
	}
	var config *configurator.ConfigError
	switch {
	case !c.ran:
		fmt.Fprintln(c.stderr, "lastgasp-configurator: run it with --help for usage")
		return exitUsage
	case errors.As(err, &config):
		return exitUsage
	case errors.Is(err, configfs.ErrNoModule), errors.Is(err, configfs.ErrNoConfigfs), errors.Is(err, configfs.ErrDevice),
		errors.Is(err, nexthop.ErrUnusable):
		return exitCannot
	case errors.Is(err, endpoint.ErrNotFound), errors.Is(err, nexthop.ErrNoRoute), errors.Is(err, nexthop.ErrNoReply),
		errors.Is(err, nexthop.ErrNotReady):
		return exitUnresolved
	default:
		return exitFailed
	}
}

// serviceStatus returns the last message to systemd, for `systemctl status`, which shows no log while a unit waits for its
// restart.
func serviceStatus(err error) string {
	if err == nil {
		return "STATUS="
	}
	return "STATUS=" + strings.ReplaceAll(strings.TrimSpace(err.Error()), "\n", "; ")
}

// errSaid is the error of a command that has already printed what is wrong as its result.
var errSaid = errors.New("")
