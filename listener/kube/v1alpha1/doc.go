// Package v1alpha1 is the KernelPanic API of lastgasp.dev: what a dying kernel said, and what was done about it.
//
// It depends on apimachinery only, so that other programs can read KernelPanics without carrying lastgasp.
package v1alpha1
