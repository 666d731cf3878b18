# What is released; included by the Makefile.

.PHONY: package package-kernel package-test image chart release modules

package: ## deb and rpm of both programs, for amd64 and arm64, into dist/
	packaging/build dist

package-kernel: ## deb and rpm of the optional kernel module, as source for dkms, into dist/
	packaging/build dist kernel

image: ## both programs as OCI archives, for amd64 and arm64, into dist/; the configurator's is for the DaemonSet
	packaging/build dist image

chart: ## the Helm chart, into dist/
	packaging/build dist chart

release: ## packages, images, chart, kernel module, SPDX documents, what is new and the checksums of all, into an empty dist/
	rm -rf dist
	packaging/build dist packages
	packaging/build dist image
	packaging/build dist chart
	packaging/build dist kernel
	awk '/^## / { n++ } n == 1' CHANGELOG.md >dist/CHANGELOG.md # its latest section
	cd dist && sums=$$(sha256sum -- *) && echo "$$sums" >SHA256SUMS

package-test: ## build the packages twice, install, upgrade and purge them in Debian 12 and 13, check units and examples (root)
	packaging/test

modules: ## the tests of the modules under packaging/: image, chart by Helm itself, alerts and dashboard by Prometheus' own code
	cd packaging/image && $(GO) vet ./... && $(GO) test -timeout 30m ./...
	cd packaging/helm && $(GO) vet ./... && $(GO) test -count=1 -timeout 30m ./... # the manifests are outside of this module, so its cache does not see them change
	cd packaging/monitoring && $(GO) vet -tags rollout ./... && $(GO) test -timeout 30m ./...
