# What is released; included by the Makefile.

.PHONY: package package-kernel package-test image release modules

package: ## deb and rpm of both programs, for amd64 and arm64, into dist/
	packaging/build dist

package-kernel: ## deb and rpm of the optional kernel module, as source for dkms, into dist/
	packaging/build dist kernel

image: ## the listener as an OCI archive, for amd64 and arm64, into dist/
	packaging/build dist image

release: ## packages, image, SPDX documents and their checksums, into an empty dist/
	rm -rf dist
	packaging/build dist packages
	packaging/build dist image
	cd dist && sums=$$(sha256sum -- *) && echo "$$sums" >SHA256SUMS

package-test: ## build the packages twice, install, upgrade and purge them in Debian 12 and 13, check units and examples (root)
	packaging/test

modules: ## the tests of the modules under packaging/: image, and alerts and dashboard by Prometheus' own code
	cd packaging/image && $(GO) vet ./... && $(GO) test ./...
	cd packaging/monitoring && $(GO) vet ./... && $(GO) test ./...
