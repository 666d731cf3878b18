package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	// Group and Version name this API: apiVersion lastgasp.dev/v1alpha1.
	Group   = "lastgasp.dev"
	Version = "v1alpha1"
	// Resource is the plural under which the API server serves NodeDeaths.
	Resource = "nodedeaths"
)

// GroupVersion of the types in this package.
func GroupVersion() schema.GroupVersion { return schema.GroupVersion{Group: Group, Version: Version} }

// AddToScheme makes the types of this package known to a client's scheme.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion(), &NodeDeath{}, &NodeDeathList{})
	metav1.AddToGroupVersion(s, GroupVersion())
	return nil
}
