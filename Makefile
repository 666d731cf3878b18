# lastgasp: `make check` is the inner loop, `make test` is what CI runs, `make demo` shows it working.

SHELL      := /bin/bash
.SHELLFLAGS := -euo pipefail -c
VERSION    ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
COMMIT     ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
LDFLAGS    := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT)
GO         := go
export CGO_ENABLED ?= 0

FUZZTIME   ?= 200000x

.PHONY: build fetch check format vet staticcheck pure fuzz live e2e e2e-ends e2e-kernel e2e-matrix rollout fixtures test demo bench bench-storm clean browser

build: ## both binaries into bin/
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/lastgasp-listener
	$(GO) build -tags "$$(cat cmd/lastgasp-configurator/tags)" -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/lastgasp-configurator
	@size=$$(stat -c %s bin/lastgasp-configurator); test $$size -le $$((12 << 20)) || \
		{ echo "lastgasp-configurator has $$size bytes: every node carries it, 12 MiB is the limit"; exit 1; }

fetch: ## what the tests need from Go's module proxy, which may have a bad moment: each tried three times
	@for module in . packaging/image packaging/helm packaging/monitoring e2e/authenticator e2e/browser; do \
		.ci/thrice $(GO) -C $$module list -deps -test -tags live,e2e,ends,rollout ./... >/dev/null || exit 1; \
	done
	@.ci/thrice $(GO) -C packaging/helm list -deps helm.sh/helm/v4/cmd/helm >/dev/null
	@.ci/thrice $(GO) list -modfile=.ci/tools.mod -deps honnef.co/go/tools/cmd/staticcheck >/dev/null
	@.ci/thrice $(GO) list -modfile=packaging/tools.mod -deps github.com/goreleaser/nfpm/v2/cmd/nfpm >/dev/null

check: format vet staticcheck build pure ## the inner loop: under a minute when warm

format:
	@out=$$(gofmt -l .); test -z "$$out" || { echo "gofmt needed: $$out"; exit 1; }

vet:
	$(GO) vet ./...
	$(GO) vet -tags live,e2e,ends,rollout ./...

staticcheck:
	$(GO) tool -modfile=.ci/tools.mod staticcheck -tags live,e2e,ends,rollout ./...

pure: ## tests that touch nothing but memory
	$(GO) test -timeout 30m ./...

fuzz: ## every fuzz target for FUZZTIME, from its kept inputs on; nightly: what a random search finds is no fault of the last change
	@grep -rl --include='*_test.go' '^func Fuzz' cmd configurator listener | xargs -n1 dirname | sort -u | while read -r dir; do \
		for target in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]+)\(.*/\1/p' $$dir/*_test.go); do \
			$(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x "./$$dir" </dev/null; \
		done; \
	done

# configurator/configfs has live tests too: they run inside the lab's guests, because they want kernels that have netconsole.
live: ## tests against this machine's kernel, in network namespaces of their own (root)
	AGAIN=1 .ci/no-skips $(GO) test -count=1 -tags live -timeout 30m -run '^TestLive' -v ./configurator ./configurator/nexthop ./configurator/canary ./configurator/farewell ./listener

browser: ## the page of deaths in Chromium, with pictures of it in dist/browser (root, to install Chromium)
	cd e2e/browser && $(GO) vet -tags rollout ./... && \
		PICTURES=$(CURDIR)/dist/browser AGAIN=1 $(CURDIR)/.ci/no-skips $(GO) test -count=1 -timeout 15m -v ./...

e2e: ## tests in the lab: microVMs that crash, a real control plane (root)
	cd e2e/authenticator && $(GO) vet ./... && $(GO) test -count=1 ./...
	AGAIN=1 .ci/no-skips $(GO) test -count=1 -tags e2e -timeout 80m -p 1 -v ./e2e/...

KUBERNETES ?= v1.33.13 v1.34.4 v1.35.4 v1.36.3 v1.37.2

e2e-matrix: ## policies, rights and every verb on each version of KUBERNETES, and Karpenter's own controllers; ten minutes a version the first time, three after that (root)
	cd e2e/karpenter && $(GO) vet ./... && $(GO) test -count=1 ./...
	for v in $(KUBERNETES); do \
		LAB_KUBERNETES=$$v .ci/no-skips $(GO) test -count=1 -tags e2e -timeout 40m -run '^TestKube$$' -v ./e2e; \
	done

rollout: ## images built, chart and DaemonSet installed from them, kernels panic: seen on the page in Chromium, and by an alert in Prometheus' engine; nightly (root)
	mkdir -p dist/browser
	PICTURES=$(CURDIR)/dist/browser .ci/no-skips $(GO) test -count=1 -tags e2e,rollout -timeout 40m -run '^TestRollout' -v ./e2e

FIXTURES ?= .

e2e-kernel: ## the optional kernel module by checkpatch.pl, and every panic with it, also with kdump; nightly, an hour and a quarter (root)
	.ci/no-skips $(GO) test -count=1 -tags e2e,ends -timeout 120m -run 'TestCheckpatch$$|TestPanicModule$$' -v ./e2e/lab -matrix

e2e-ends: ## boots that end in every way we know of, and what Kubernetes then knows; nightly, half an hour (root)
	.ci/no-skips $(GO) test -count=1 -tags e2e,ends -timeout 60m -run 'TestEnds$$' -v ./e2e -every-end

fixtures: ## capture the fixtures of listener/detect anew, or those that FIXTURES matches (6.12-arm64-sysrq); two hours for all (root)
	$(GO) test -count=1 -tags e2e -timeout 180m -run 'TestCaptureCorpus/$(FIXTURES)' -v ./e2e/lab -update

test: fetch check modules live browser e2e ## every test but the nightly ones (fuzz, e2e-ends, e2e-kernel, e2e-matrix, rollout) and package-test

demo: ## two real kernels panic, and Kubernetes knows why: one is heard, the other says so on its next boot
	@echo "compiling the lab, a minute the first time"
	@$(GO) run ./e2e/demo

bench: ## every figure beside its reference, also into bench.json; wants a quiet machine (root)
	@$(GO) run ./e2e/bench

bench-storm: ## panics amid a log storm: one and two targets on 1, 2 and 4 CPUs; nightly, half an hour (root)
	@$(GO) run ./e2e/bench -o storm.json storm

clean:
	rm -rf bin dist

include packaging/package.mk
