// Package v1alpha1 is the NodeDeath API of lastgasp.dev: how a node died, and what was done about it.
//
// It depends on apimachinery only, so that other programs can read NodeDeaths without linking lastgasp.
package v1alpha1
