// Package karpenter runs Karpenter's own controllers on Nodes as lastgasp leaves them.
package karpenter
