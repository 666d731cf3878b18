// Command lastgasp-configurator arms netconsole on a node so that its kernel can be heard dying.
//
// What is released is built with the tags of the file tags: without HTTP/2, which would be 360 KiB on every node for the few
// documents an hour that it asks for.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/coreos/go-systemd/v22/daemon"
)

func main() { os.Exit(run(os.Args[1:])) }

// run is main, but returns the exit code, so that deferred functions run.
func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	c := &command{stdout: os.Stdout, stderr: os.Stderr, environ: os.Environ()}
	root := c.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	_, _ = daemon.SdNotify(false, serviceStatus(err)) // there is nobody to tell about a failure
	return c.exit(err)
}
