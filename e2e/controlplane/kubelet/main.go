// Command kubelet is Kubernetes' own kubelet, with its own container manager and command line, on a fake container runtime that it
// brings along. The hollow kubelet has no container manager, so it neither sets nor checks the kernel's settings.
package main

import (
	"context"
	"fmt"
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/cri-client/pkg/fake"
	"k8s.io/kubernetes/cmd/kubelet/app"
)

func main() {
	endpoint, err := fake.GenerateEndpoint()
	if err == nil {
		err = fake.NewFakeRemoteRuntime().Start(endpoint)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "kubelet: start the fake runtime: %v\n", err)
		os.Exit(1)
	}
	os.Args = append(os.Args, "--container-runtime-endpoint="+endpoint)
	os.Exit(cli.Run(app.NewKubeletCommand(context.Background())))
}
