// Command demo makes two real kernels panic and shows that Kubernetes knows why: one is heard, the other says so on its next
// boot. It is `make demo`.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/e2e/story"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	s := newStage(os.Stdout)
	verdict, err := play(ctx, s)
	s.failed = err != nil
	if ctx.Err() != nil {
		err, s.failed = errors.New("interrupted"), false // nothing has failed, so no evidence is needed
	}
	s.Run() // before the last line: PASS also means that nothing is left behind
	if err != nil {
		// One line: the details stand above it.
		why, _, _ := strings.Cut(err.Error(), "\n")
		if why != err.Error() {
			fmt.Println(err)
		}
		fmt.Println("demo: FAIL", why)
		return 1
	}
	fmt.Println(verdict)
	return 0
}

// play runs the story on s and returns the closing line.
func play(ctx context.Context, s *stage) (string, error) {
	if os.Geteuid() != 0 {
		return "", errors.New("network namespaces and microVMs want root: run it as root")
	}
	s.Logf("Debian's 6.12 kernel")
	kernel, err := lab.FetchKernel(ctx, s, "6.12")
	if err != nil {
		return "", err
	}
	w, err := story.NewWorld(ctx, s)
	if err != nil {
		return "", err
	}
	n, err := w.BootNode(ctx, s, story.NodeSpec{Name: "node-1", Kernel: kernel, Panic: 10})
	if err != nil {
		return "", err
	}
	fmt.Print(indent(n.Verified))
	if err := w.AwaitPin(ctx, n); err != nil {
		return "", err
	}
	enrolled, err := w.Enrolled(ctx, n)
	if err != nil {
		return "", err
	}
	s.Logf("node-1 has pinned its own Node: %s", enrolled)
	s.Logf("running a Deployment, a StatefulSet, a DaemonSet, two Jobs and a static pod on node-1")
	victims, err := w.Deploy(ctx, n.Namespace, n.Name)
	if err != nil {
		return "", err
	}
	s.Logf("echo c > /proc/sysrq-trigger")
	d, err := w.Kill(ctx, n, lab.CrashSysrq, victims, 90*time.Second)
	if err != nil {
		w.Explain(s)
		return "", err
	}
	if err := report(ctx, os.Stdout, w, n, d); err != nil {
		return "", err
	}
	if err := d.Check(); err != nil {
		return "", err
	}
	recorded, err := afterwards(ctx, s, w)
	if err != nil {
		return "", err
	}
	since := func(t time.Time) int64 { return t.Sub(d.Heard).Milliseconds() }
	return fmt.Sprintf("demo: PASS kernel=%s gasp_to_fence_ms=%d gasp_to_pods_failed_ms=%d gasp_to_replaced_ms=%d pods=%d trace_lines=%d back_to_recorded_ms=%d",
		kernel.Release, since(d.Fenced), since(d.PodsFailed), since(d.Replaced), d.NodeDeath.Status.Pods.Failed, len(d.NodeDeath.Spec.Trace),
		recorded.Milliseconds()), nil
}
