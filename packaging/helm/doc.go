// Package helm tests the chart beside it with Helm itself, and against what kustomize renders.
package helm
