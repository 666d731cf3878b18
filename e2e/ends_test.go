//go:build e2e && ends

package e2e

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lastgasp/lastgasp/e2e/cloud"
	"github.com/lastgasp/lastgasp/e2e/lab"
	"github.com/lastgasp/lastgasp/e2e/story"
	"github.com/lastgasp/lastgasp/listener/kube/v1alpha1"
)

var everyEnd = flag.Bool("every-end", false, "end the boots of a machine with a whole system, too")

// TestEnds ends the boots of real kernels in every way that we know of, with moto as EC2 and the guests' own serial consoles as
// what EC2 keeps. Each must be on record with the right reason, and on the node's pods where it is known in time.
func TestEnds(t *testing.T) {
	w := newEndsWorld(t)
	var running sync.WaitGroup
	turns := make(chan struct{}, endsAtOnce)
	start := func(name string, try func(t *testing.T, leave func())) {
		turns <- struct{}{}
		running.Go(func() {
			leave := sync.OnceFunc(func() { <-turns })
			defer leave()
			t.Run(name, func(t *testing.T) { try(t, leave) })
		})
	}
	if *everyEnd {
		start("a machine with a system", func(t *testing.T, _ func()) { w.tryMachine(t, w.instances[len(ends())]) })
	}
	for i, e := range ends() {
		e.name, e.instance = fmt.Sprintf("end-%d", i+1), w.instances[i]
		start(e.way, func(t *testing.T, leave func()) { w.try(t, e, leave) })
	}
	running.Wait()
	t.Logf("how boots ended, and what is known of it:\n%s", w.table())
}

// end is a way to end a boot, and what must be known of it.
type end struct {
	way    string
	kernel string
	node   story.NodeSpec
	crash  lab.Crash
	do     func(t *testing.T, w *endsWorld, e end, vm *lab.VM) error // instead of crash
	back   bool                                                      // the machine boots again

	cause, reason string // reason is a part of it
	evidence      string
	acted         bool // its pods are failed; a node that was away for long may be taken for gone in any case

	name, instance string
}

// ends are those of machines that have only a kernel, the one that takes longest first.
func ends() []end {
	return []end{
		{way: "the instance never returns", kernel: "6.12", do: terminate,
			cause: "Terminated", reason: "is terminated", evidence: "cloud"},
		{way: "panic, 6.12", kernel: "6.12", crash: lab.CrashNullDeref,
			cause: "KernelOops", reason: "NULL pointer dereference", evidence: "netconsole", acted: true},
		{way: "panic, 6.1: no secret", kernel: "6.1", crash: lab.CrashSysrq,
			cause: "KernelPanic", reason: "sysrq triggered crash", evidence: "netconsole", acted: true},
		{way: "panic, 7.x that reboots, with the module", kernel: "7", crash: lab.CrashSysrq, node: story.NodeSpec{Panic: 1, Module: "build"},
			cause: "KernelPanic", reason: "sysrq triggered crash", evidence: "netconsole", acted: true},
		// What sysrq says before its panic may be sent while the kernel lives.
		{way: "panic, 7.x that reboots, without the module", kernel: "7", crash: lab.CrashInitExit, node: story.NodeSpec{Panic: 1, Pstore: true},
			back: true, cause: "KernelPanic", reason: "Attempted to kill init!", evidence: "pstore"},
		{way: "panic, 7.x that reboots, on EC2's console only", kernel: "7", crash: lab.CrashInitExit, node: story.NodeSpec{Panic: 1, Reboot: true},
			back: true, cause: "KernelPanic", reason: "Attempted to kill init!", evidence: "console"},
		{way: "panic, out of memory", kernel: "6.12", do: exhaustMemory, node: story.NodeSpec{Sysctls: map[string]string{"vm.panic_on_oom": "1"}},
			cause: "KernelPanic", reason: "Out of memory", evidence: "netconsole", acted: true},
		{way: "panic, hung task", kernel: "6.12", crash: lab.CrashHungTask, node: story.NodeSpec{Sysctls: map[string]string{
			"kernel.hung_task_timeout_secs": "3", "kernel.hung_task_panic": "1"}},
			cause: "KernelPanic", reason: "hung", evidence: "netconsole", acted: true},
		{way: "sysrq-b", kernel: "6.12", crash: lab.CrashReset, node: story.NodeSpec{Reboot: true}, back: true,
			cause: "SysrqReset", reason: "sysrq triggered reset", evidence: "netconsole", acted: true},
		{way: "hard hang, reset by the watchdog", kernel: "6.12", do: hangUntilReset, node: story.NodeSpec{Reboot: true, Watchdog: true}, back: true,
			cause: "Watchdog", reason: "it reset the machine", evidence: "watchdog"},
	}
}

func exhaustMemory(t *testing.T, _ *endsWorld, _ end, vm *lab.VM) error {
	return vm.Start(t.Context(), "hog", "2048") // twice what the guest has
}

// hangUntilReset starts the watchdog, and has the only CPU take no interrupts.
func hangUntilReset(t *testing.T, _ *endsWorld, _ end, vm *lab.VM) error {
	if err := vm.WriteFile(t.Context(), "/dev/watchdog", []byte("a keep-alive"), 0); err != nil {
		return err
	}
	return vm.Crash(t.Context(), lab.CrashIRQsOff)
}

// terminate takes the machine away, as EC2 does.
func terminate(t *testing.T, w *endsWorld, e end, vm *lab.VM) error {
	vm.Kill()
	askEC2(t, w.moto, url.Values{"Action": {"TerminateInstances"}, "InstanceId.1": {e.instance}})
	return nil
}

// endsAtOnce is how many guests run at once.
const endsAtOnce = 2

// endsWorld is the story's world with EC2 in it.
type endsWorld struct {
	*story.World
	moto      *cloud.Moto
	consoles  *consoles
	instances []string

	mu   sync.Mutex
	rows []string
}

func newEndsWorld(t *testing.T) *endsWorld {
	t.Helper()
	world, err := story.NewWorld(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	w := &endsWorld{World: world}
	w.moto = useMoto(t, w.Net.Listener)
	w.consoles = serveConsoles(t, w.Net.Listener, w.moto)
	w.instances = runInstances(t, w.moto, len(ends())+1)
	// Nobody replaces the pods of this test: what is kept can be looked at.
	if err := w.Listen(t.Context(), t, "cloud: {fate: true}\npods: {keep: 10m}\n"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			w.Explain(t)
		}
	})
	return w
}

// try ends a boot and waits until the reason is known. It calls leave if its guest is gone before that.
func (w *endsWorld) try(t *testing.T, e end, leave func()) {
	outcome := "NOT REACHED"
	defer func() { w.row(e.way, outcome) }()

	n := w.bootNode(t, e)
	pod := w.runPod(t, n)
	boot, ended := n.BootID, time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	end := func(_ context.Context, vm *lab.VM) error {
		ended = time.Now()
		if e.do != nil {
			return e.do(t, w, e, vm)
		}
		return vm.Crash(ctx, e.crash)
	}
	if e.back {
		_, says, err := w.Return(ctx, n, end)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("last-boot:\n%s", says)
	} else if err := end(ctx, n.VM); err != nil {
		t.Fatal(err)
	} else if e.evidence == "cloud" {
		leave() // the guest is gone
	}

	known, d, err := w.AwaitDeath(ctx, n.Name, boot, func(d v1alpha1.NodeDeath) error { return e.check(d, pod) })
	if err != nil {
		w.Explain(t)
		t.Fatal(err)
	}
	outcome = e.outcome(d, known.Sub(ended))
	if d.Status.Pods.Failed > 0 {
		eventually(t, "the pod to say why", func() error { return pod.saysWhy(ctx, e) })
	}
	t.Logf("%s: %s; %s", d.Spec.Cause, d.Spec.Reason, d.Status.Decision)
}

// check returns what is not as it should be, nil if all is.
func (e end) check(d v1alpha1.NodeDeath, p endsPod) error {
	if !slices.ContainsFunc(d.Spec.Pods, func(dead v1alpha1.DeadPod) bool { return dead.UID == string(p.pod.UID) }) {
		return fmt.Errorf("pod %s is not named: %+v", p.pod.Name, d.Spec.Pods)
	}
	failed := d.Status.Pods.Failed > 0
	if d.Spec.Cause != e.cause || !strings.Contains(d.Spec.Reason, e.reason) || !slices.Contains(d.Spec.Evidence, e.evidence) ||
		e.acted && !failed || !failed && d.Status.Phase != "Recorded" {
		return fmt.Errorf("%s, %q by %v, %s: %s, %d pods failed; want %s, %q by %s", d.Spec.Cause, d.Spec.Reason, d.Spec.Evidence,
			d.Status.Phase, d.Status.Decision, d.Status.Pods.Failed, e.cause, e.reason, e.evidence)
	}
	return nil
}

// outcome is what became of it, for the table.
func (e end) outcome(d v1alpha1.NodeDeath, after time.Duration) string {
	pods := "named"
	if d.Status.Pods.Failed > 0 {
		pods = "failed"
	}
	return fmt.Sprintf("%s\t%s\t%s\t%.1f", d.Spec.Cause, strings.Join(d.Spec.Evidence, "+"), pods, after.Seconds())
}

// bootNode boots the machine, armed and pinned, as the instance that EC2 knows.
func (w *endsWorld) bootNode(t *testing.T, e end) *story.Node {
	t.Helper()
	ctx, spec := t.Context(), e.node
	var err error
	if spec.Kernel, err = lab.FetchKernel(ctx, t, e.kernel); err != nil {
		t.Fatal(err)
	}
	if spec.CrashModule, err = lab.BuildCrashModule(ctx, t, spec.Kernel); err != nil {
		t.Fatal(err)
	}
	if spec.Module != "" {
		if spec.Module, err = lab.BuildModule(ctx, t, spec.Kernel, "lastgasp", os.DirFS("../packaging/kernel")); err != nil {
			t.Fatal(err)
		}
	}
	spec.Name, spec.ProviderID = e.name, "aws:///"+zone+"/"+e.instance
	n, err := w.BootNode(ctx, t, spec)
	if err != nil {
		t.Fatal(err)
	}
	w.consoles.show(e.instance, n.VM.Serial())
	await := w.AwaitPin
	if e.kernel == "6.1" {
		await = w.AwaitLease // there is no secret to pin
	}
	if err := await(ctx, n); err != nil {
		t.Fatal(err)
	}
	return n
}

// causeKey is where a pod that was failed carries the cause; its status has the same reason for all of them.
const causeKey = "lastgasp.dev/termination-code"

// endsPod is a pod that was on the node.
type endsPod struct {
	w   *endsWorld
	pod *corev1.Pod
}

// runPod runs a pod on the node.
func (w *endsWorld) runPod(t *testing.T, n *story.Node) endsPod {
	t.Helper()
	pods := w.Cluster.Client().CoreV1().Pods(n.Namespace)
	pod, err := pods.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "main-"},
		Spec:       corev1.PodSpec{NodeName: n.Name, Containers: []corev1.Container{{Name: "main", Image: "none"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pod on "+n.Name+" to run", func() error {
		p, err := pods.Get(t.Context(), pod.Name, metav1.GetOptions{})
		if err == nil && p.Status.Phase != corev1.PodRunning {
			err = fmt.Errorf("it is %s", p.Status.Phase)
		}
		return err
	})
	return endsPod{w: w, pod: pod}
}

// saysWhy returns nil if the pod was failed for the death's cause.
func (p endsPod) saysWhy(ctx context.Context, e end) error {
	now, err := p.w.Cluster.Client().CoreV1().Pods(p.pod.Namespace).Get(ctx, p.pod.Name, metav1.GetOptions{})
	if err == nil && (now.UID != p.pod.UID || now.Status.Phase != corev1.PodFailed || now.Status.Reason != "KernelPanic" ||
		now.Annotations[causeKey] != e.cause || !strings.Contains(now.Status.Message, e.reason)) {
		err = fmt.Errorf("pod %s is %s, %s: %s; annotations %v", now.UID, now.Status.Phase, now.Status.Reason, now.Status.Message, now.Annotations)
	}
	return err
}

// row adds a line to the table.
func (w *endsWorld) row(way, outcome string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rows = append(w.rows, way+"\t"+outcome+"\n")
}

// table is how each boot ended, with the seconds until that was known.
func (w *endsWorld) table() string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "way\tcause\tevidence\tpods\tseconds")
	for _, row := range w.rows {
		fmt.Fprint(t, row)
	}
	_ = t.Flush() // into memory
	return b.String()
}
