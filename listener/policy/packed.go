package policy

import (
	"iter"
	"strconv"
	"strings"
)

// PackedPods are the pods of a Death in one string, for whoever keeps the pods of thousands of deaths: namespace, name, owner
// and images of each, without its UID. A pod takes its names and some five bytes; an image is written once.
type PackedPods string

// Separators of PackedPods; no name or image has them. The first line lists the images. Each other line is a pod: namespace,
// name, kind and name of its owner, and indices of its images.
const (
	packedLine  = "\n"
	packedField = "\x00"
)

// PackPods packs a death's pods.
func PackPods(pods []DeadPod, images []string) PackedPods {
	if len(pods) == 0 {
		return ""
	}
	clean := strings.NewReplacer(packedLine, " ", packedField, " ")
	var b strings.Builder
	for i, image := range images {
		if i > 0 {
			b.WriteString(packedField)
		}
		b.WriteString(clean.Replace(image))
	}
	for _, p := range pods {
		b.WriteString(packedLine)
		for _, s := range [...]string{p.Namespace, p.Name, p.OwnerKind, p.OwnerName} {
			b.WriteString(clean.Replace(s))
			b.WriteString(packedField)
		}
		for i, at := range p.Images {
			if i > 0 {
				b.WriteByte(',')
			}
			b.WriteString(strconv.Itoa(at))
		}
	}
	return PackedPods(strings.Clone(b.String()))
}

// All yields each pod with its images by name.
func (p PackedPods) All() iter.Seq2[DeadPod, []string] {
	return func(yield func(DeadPod, []string) bool) {
		head, rest, more := strings.Cut(string(p), packedLine)
		all := strings.Split(head, packedField)
		for more {
			var line string
			line, rest, more = strings.Cut(rest, packedLine)
			f := strings.SplitN(line, packedField, 5)
			if len(f) != 5 {
				continue
			}
			pod := DeadPod{Namespace: f[0], Name: f[1], OwnerKind: f[2], OwnerName: f[3]}
			var images []string
			for _, word := range strings.Split(f[4], ",") {
				if at, err := strconv.Atoi(word); err == nil && at >= 0 && at < len(all) {
					pod.Images, images = append(pod.Images, at), append(images, all[at])
				}
			}
			if !yield(pod, images) {
				return
			}
		}
	}
}

// Images are the names of all images.
func (p PackedPods) Images() []string {
	head, _, _ := strings.Cut(string(p), packedLine)
	if head == "" {
		return nil
	}
	return strings.Split(head, packedField)
}
