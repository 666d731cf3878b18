# deb and rpm packages; included by the Makefile.

.PHONY: package package-test

package: ## deb and rpm of both programs, for amd64 and arm64, into dist/
	packaging/build dist

package-test: ## build the packages twice, install, upgrade and purge them in Debian 12 and 13, check units and examples (root)
	packaging/test
