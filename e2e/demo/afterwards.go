package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/e2e/story"
)

// afterwards is the second story: a kernel that reboots before netconsole may speak (7.0 and later, kernel.panic not 0). The next
// boot says how it ended. Process 1 ends: what sysrq says before its panic may be sent while the kernel lives. It returns the time from the machine's return to the record.
func afterwards(ctx context.Context, s *stage, w *story.World) (time.Duration, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Minute, errors.New("the second death was not on record after five minutes"))
	defer cancel()
	fmt.Println()
	s.Logf("a death that nobody hears: Debian's 7.x kernel, which reboots at once")
	kernel, err := lab.FetchKernel(ctx, s, "7")
	if err != nil {
		return 0, err
	}
	n, err := w.BootNode(ctx, s, story.NodeSpec{Name: "node-2", Kernel: kernel, Panic: 10, Pstore: true})
	if err != nil {
		return 0, err
	}
	if err := w.AwaitPin(ctx, n); err != nil {
		return 0, err
	}
	boot := n.BootID
	s.Logf("process 1 ends on node-2, which is a panic")
	back, says, err := w.Return(ctx, n, func(ctx context.Context, vm *lab.VM) error { return vm.Crash(ctx, lab.CrashInitExit) })
	if err != nil {
		return 0, err
	}
	fmt.Printf("\n%s is back on a new boot. What it says of the former one:\n\n$ lastgasp-configurator last-boot\n%s", n.Name, says)
	d, err := w.AwaitRecorded(ctx, n.Name, boot)
	if err != nil {
		w.Explain(s)
		return 0, err
	}
	recorded := time.Since(back)
	table, err := w.Cluster.Kubectl(ctx, "get", "nodedeath", d.Name)
	if err != nil {
		return 0, err
	}
	fmt.Printf("\nThe listener has it %.1f s after the machine was back, from %s. The node stays as it is:\n\n$ kubectl get nodedeath %s\n%s\n",
		recorded.Seconds(), d.Spec.Evidence[0], d.Name, table)
	if d.Spec.Cause != "KernelPanic" || !strings.HasPrefix(d.Spec.Reason, "Attempted to kill init!") || d.Spec.Evidence[0] != "pstore" {
		return 0, fmt.Errorf("node-2's death is recorded as cause %s, reason %q, evidence %s", d.Spec.Cause, d.Spec.Reason, d.Spec.Evidence)
	}
	return recorded, nil
}
