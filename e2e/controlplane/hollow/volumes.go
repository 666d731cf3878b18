package main

import (
	"fmt"
	"slices"

	"k8s.io/kubernetes/pkg/volume"
	"k8s.io/kubernetes/pkg/volume/csi"
	"k8s.io/kubernetes/pkg/volume/testing"
)

// volumes mounts every CSI volume that is attached to this node, by doing nothing: there is no driver here. All the rest
// is the kubelet's own: that it waits for the attachment, and says in the Node's status which volumes are in use, without
// which nobody would hesitate to detach them.
type volumes struct {
	*testing.FakeVolumePlugin
}

func newVolumes() volumes {
	return volumes{&testing.FakeVolumePlugin{
		PluginName:   csi.CSIPluginName,
		CanSupportFn: func(spec *volume.Spec) bool { return persistent(spec) },
	}}
}

// GetVolumeName names a volume as kubernetes pkg/volume/csi does, which is how the controllers know it.
func (volumes) GetVolumeName(spec *volume.Spec) (string, error) {
	if !persistent(spec) {
		return "", fmt.Errorf("volume %s is not a persistent CSI volume", spec.Name())
	}
	source := spec.PersistentVolume.Spec.CSI
	return source.Driver + "^" + source.VolumeHandle, nil
}

func persistent(spec *volume.Spec) bool {
	return spec.PersistentVolume != nil && spec.PersistentVolume.Spec.CSI != nil
}

// instead replaces the plugin that has v's name by v.
func (v volumes) instead(plugins []volume.VolumePlugin) []volume.VolumePlugin {
	others := slices.DeleteFunc(slices.Clone(plugins), func(p volume.VolumePlugin) bool {
		return p.GetPluginName() == v.GetPluginName()
	})
	return append(others, v)
}
