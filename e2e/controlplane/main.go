// Command controlplane is etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kubectl in one file, chosen
// by the name it is called by or by its first argument. One program is linked once: five of them would take the linker
// five times as long and the disk three times as much.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/etcdmain"
	_ "k8s.io/client-go/plugin/pkg/client/auth"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

func main() {
	if run := program(os.Args[0]); run != nil {
		os.Exit(run())
	}
	// All of the programs look for their arguments in os.Args: `controlplane etcd …` becomes `etcd …`.
	os.Args = os.Args[1:]
	if len(os.Args) > 0 {
		if run := program(os.Args[0]); run != nil {
			os.Exit(run())
		}
	}
	fmt.Fprintln(os.Stderr, "usage: controlplane etcd|kube-apiserver|kube-controller-manager|kube-scheduler|kubectl [argument...]")
	os.Exit(2)
}

// program returns the main function of the named program, which returns an exit code. It is nil for any other name.
func program(name string) func() int {
	switch filepath.Base(name) {
	case "etcd":
		return func() int { etcdmain.Main(os.Args); return 0 }
	case "kube-apiserver":
		return func() int { return cli.Run(apiserver.NewAPIServerCommand()) }
	case "kube-controller-manager":
		return func() int { return cli.Run(controllers.NewControllerManagerCommand()) }
	case "kube-scheduler":
		return func() int { return cli.Run(scheduler.NewSchedulerCommand()) }
	case "kubectl":
		return func() int {
			kubectlutil.CheckErr(cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand())) // exits when there is one
			return 0
		}
	}
	return nil
}
