package crowd

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/lastgasp/lastgasp/e2e/load"
)

// imagesKept is how many images a kubelet reports of those it has (nodeStatusMaxImages); they are most of a Node's size.
const imagesKept = 50

// Name is the Node's name of node n.
func Name(n int) string { return fmt.Sprintf("crowd-%05d", n) }

// PodName is the name of pod i of node n.
func PodName(n, i int) string { return fmt.Sprintf("%s-%03d", Name(n), i) }

// node is Node n as its kubelet would have it.
func node(n int, now metav1.Time) *corev1.Node {
	room := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("16"), corev1.ResourceMemory: resource.MustParse("64Gi"),
		corev1.ResourcePods: resource.MustParse("250"), corev1.ResourceEphemeralStorage: resource.MustParse("100Gi"),
	}
	out := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: Name(n),
			Labels: map[string]string{
				corev1.LabelHostname: Name(n), corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64",
				corev1.LabelInstanceTypeStable: "m7i.4xlarge", corev1.LabelTopologyRegion: "us-east-1",
				corev1.LabelTopologyZone: fmt.Sprintf("us-east-1%c", 'a'+n%3),
			},
		},
		Spec: corev1.NodeSpec{ProviderID: fmt.Sprintf("aws:///us-east-1%c/%s", 'a'+n%3, load.Instance(n))},
		Status: corev1.NodeStatus{
			Capacity: room, Allocatable: room,
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: load.Addr(n).String()}, {Type: corev1.NodeHostName, Address: Name(n)},
			},
			NodeInfo: corev1.NodeSystemInfo{
				MachineID: fmt.Sprintf("%032x", n), BootID: load.Boot(n), OperatingSystem: "linux", Architecture: "amd64",
				KernelVersion: "6.12.117+deb13-cloud-amd64", KubeletVersion: "v1.36.3", ContainerRuntimeVersion: "containerd://2.1.4",
			},
		},
	}
	for _, c := range []corev1.NodeConditionType{corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure, corev1.NodeReady} {
		status := corev1.ConditionFalse
		if c == corev1.NodeReady {
			status = corev1.ConditionTrue
		}
		out.Status.Conditions = append(out.Status.Conditions, corev1.NodeCondition{
			Type: c, Status: status, Reason: "Kubelet", Message: "as the kubelet says", LastHeartbeatTime: now, LastTransitionTime: now,
		})
	}
	for i := range imagesKept {
		image := fmt.Sprintf("registry.example.com/team-%02d/service-%03d", i%7, i)
		out.Status.Images = append(out.Status.Images, corev1.ContainerImage{
			Names: []string{fmt.Sprintf("%s@sha256:%064x", image, i), image + ":v1.2.3"}, SizeBytes: int64(i) << 20,
		})
	}
	return out
}

// pod is pod i of node n, as large as a plain service's.
func pod(n, i int, now metav1.Time) *corev1.Pod {
	yes, probe := true, func(path string) *corev1.Probe {
		return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromInt32(8080)}}}
	}
	out := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: metav1.NamespaceDefault, Name: PodName(n, i),
			Labels: map[string]string{
				"app.kubernetes.io/name": fmt.Sprintf("service-%03d", i), "app.kubernetes.io/part-of": "shop", "team": "checkout",
				"pod-template-hash": "6d4b75cb6d",
			},
			Annotations: map[string]string{"prometheus.io/scrape": "true", "prometheus.io/port": "9090"},
		},
		Spec: corev1.PodSpec{
			NodeName: Name(n),
			Containers: []corev1.Container{{
				Name: "main", Image: fmt.Sprintf("registry.example.com/team-%02d/service-%03d:v1.2.3", i%7, i),
				Ports:         []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}, {Name: "metrics", ContainerPort: 9090}},
				LivenessProbe: probe("/healthz"), ReadinessProbe: probe("/readyz"),
				Resources: corev1.ResourceRequirements{
					Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi")},
					Limits:   corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("256Mi")},
				},
			}},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, StartTime: &now, HostIP: load.Addr(n).String(), QOSClass: corev1.PodQOSBurstable,
			PodIP: fmt.Sprintf("10.%d.%d.%d", n>>8&255, n&255, i), HostIPs: []corev1.HostIP{{IP: load.Addr(n).String()}},
			ContainerStatuses: []corev1.ContainerStatus{{
				Name: "main", Ready: true, Started: &yes, Image: fmt.Sprintf("registry.example.com/team-%02d/service-%03d:v1.2.3", i%7, i),
				ImageID:     fmt.Sprintf("registry.example.com/team-%02d/service-%03d@sha256:%064x", i%7, i, i),
				ContainerID: fmt.Sprintf("containerd://%064x", n<<8+i),
				State:       corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
			}},
		},
	}
	for e := range 6 {
		out.Spec.Containers[0].Env = append(out.Spec.Containers[0].Env, corev1.EnvVar{Name: fmt.Sprintf("SETTING_%d", e), Value: "some value"})
	}
	for _, c := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		out.Status.Conditions = append(out.Status.Conditions, corev1.PodCondition{Type: c, Status: corev1.ConditionTrue, LastTransitionTime: now})
	}
	return out
}
