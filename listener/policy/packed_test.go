package policy

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPackedPods(t *testing.T) {
	images := []string{"registry/app:1", "registry/sidecar:2"}
	pods := []DeadPod{
		{Namespace: "shop", Name: "cart-0", OwnerKind: "StatefulSet", OwnerName: "cart", Images: []int{0, 1}},
		{Namespace: "shop", Name: "bare"},
		{Namespace: "kube-system", Name: "proxy-x", OwnerKind: "DaemonSet", OwnerName: "proxy", Images: []int{1}},
	}
	var got []DeadPod
	var named [][]string
	p := PackPods(pods, images)
	for pod, images := range p.All() {
		got, named = append(got, pod), append(named, images)
	}
	if diff := cmp.Diff(pods, got); diff != "" {
		t.Errorf("pods (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([][]string{images, nil, images[1:]}, named); diff != "" {
		t.Errorf("images of pods (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(images, p.Images()); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
	for range p.All() {
		break // whoever has found what it looked for stops
	}
}

// What is no name cannot become another pod, nor another image.
func TestPackedPodsOfHostileNames(t *testing.T) {
	pods := []DeadPod{{Namespace: "a\nb\x00c", Name: "d", Images: []int{0, -1, 7}}, {Namespace: "e", Name: "f"}}
	p := PackPods(pods, []string{"i\x00j\nk"})
	var got []DeadPod
	for pod := range p.All() {
		got = append(got, pod)
	}
	want := []DeadPod{{Namespace: "a b c", Name: "d", Images: []int{0}}, {Namespace: "e", Name: "f"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("pods (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"i j k"}, p.Images()); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
	for _, none := range []PackedPods{PackPods(nil, nil), "\x00", "\n\n"} {
		for pod := range none.All() {
			t.Errorf("%q has pod %v", none, pod)
		}
	}
}
