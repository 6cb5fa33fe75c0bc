# Everything that is done here, by people and by machines. `make` lists it. .ci/run runs `make ci` and nothing else.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --warn-undefined-variables --no-builtin-rules --no-print-directory

# The binary that people run is static, and some dependencies (pebble) have other code under cgo; so everything but the
# race detector, which cannot do without, builds and tests what ships.
export CGO_ENABLED := 0

TMP := .tmp
BIN := $(TMP)/bin
STINT := $(BIN)/stint
BUF := $(BIN)/buf

## ---- use ----

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 } /^## / { print "" }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build the static binary: .tmp/bin/stint
	go build -trimpath -o $(STINT) ./cmd/stint

.PHONY: demo
demo: build ## Run eleven thousand jobs, kill the server in the middle, compare every result
	$(STINT) demo

.PHONY: bench
bench: build ## Measure the numbers that the contract holds, as JSON
	$(STINT) bench -o json

## ---- test ----

# What `make soak` raises. STINT_SOAK=1 asks simtest and blackbox for their long settings.
export STINT_SOAK ?=
CRASH_CYCLES ?= 1000
FUZZTIME ?= 10s
TIMEOUT ?= 10m

.PHONY: test
test: ## Run all tests that need Go only
	go test -timeout $(TIMEOUT) ./...

SIM_PACKAGE := ./internal/simtest/...

# In a synctest bubble, two goroutines that find their timers expired at the same moment run them on the same context of
# the race detector, which is for one thread only: it crashes (golang/go#78156, open for Go 1.26; 8 goroutines that make
# time.NewTimer(0) and receive from it crash every second time, and never on one processor). The simulation is full of
# timers, so it gets one processor; what happened before what, the detector sees all the same.
.PHONY: race
race: ## Run them under the race detector (needs a C compiler)
	@cc=$$(go env CC); command -v "$${cc%% *}" >/dev/null || { \
		echo "race: needs a C compiler, and $$cc is not installed; for example: apt-get install gcc libc6-dev" >&2; exit 1; }
	CGO_ENABLED=1 go test -race -short -timeout $(TIMEOUT) -cpu 1 $(SIM_PACKAGE)
	CGO_ENABLED=1 go test -race -short -timeout $(TIMEOUT) $$(go list ./... | grep -v /simtest)

# The crash test of the store: CRASH_CYCLES cycles of write, crash, clone, reopen. Elsewhere it runs a few.
CRASH_PACKAGE := ./internal/store/pebblestore
CRASH_TEST := ^TestCrash

.PHONY: sim
sim: ## Simulate whole systems in virtual time; crash the store a thousand times; prove that these tests can fail
	go test -count=1 -timeout $(TIMEOUT) $(SIM_PACKAGE)
	.ci/missed ./internal/simtest '^TestMissedWakeUps$$' $(TIMEOUT)
	STINT_CRASH_CYCLES=$(CRASH_CYCLES) .ci/crash $(CRASH_PACKAGE) '$(CRASH_TEST)' $(TIMEOUT)

.PHONY: blackbox
blackbox: build $(BIN)/grpcurl ## Drive the real binary from outside: kill -9, pipes, a shell worker
	STINT_BIN=$(abspath $(STINT)) GRPCURL=$(abspath $(BIN)/grpcurl) \
		go test -tags blackbox -count=1 -timeout $(TIMEOUT) ./internal/blackbox/...

.PHONY: fuzz
fuzz: ## Run every fuzz test for FUZZTIME (10s)
	@grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' client cmd internal server | sort | while IFS=: read -r file func; do \
		echo "fuzz: $$file $${func#func }"; \
		go test -run='^$$' -fuzz="^$${func#func }\$$" -fuzztime=$(FUZZTIME) -fuzzminimizetime=1s "./$$(dirname "$$file")"; \
	done

.PHONY: cover
cover: ## Measure what the tests cover: .tmp/cover.html
	@mkdir -p $(TMP)
	go test -timeout $(TIMEOUT) -coverprofile=$(TMP)/cover.out \
		-coverpkg="$$(go list ./... | grep -v /gen/ | paste -sd,)" ./...
	go tool cover -html=$(TMP)/cover.out -o $(TMP)/cover.html
	go tool cover -func=$(TMP)/cover.out | tail -n 1

.PHONY: soak
soak: ## Run sim, blackbox and fuzz with long settings: two hours or more
	$(MAKE) sim blackbox fuzz STINT_SOAK=1 CRASH_CYCLES=5000 FUZZTIME=1m TIMEOUT=2h

## ---- check ----

# .ci/stages stops at the first that fails.
CI_STAGES := vet test check-gen race sim blackbox demo lint

.PHONY: ci
ci: ## Run every stage that a change must pass, each timed
	@MAKE="$(MAKE)" .ci/stages $(CI_STAGES)

.PHONY: vet
vet: ## Run go vet, also over the code behind build tags, and check the shell scripts' syntax
	go vet ./...
	go vet -tags blackbox,mutant_nosync,mutant_nowake,mutant_nosweep ./...
	for script in .ci/* examples/shell/*.sh; do bash -n "$$script"; done

.PHONY: lint
lint: $(BIN)/golangci-lint ## Run golangci-lint
	$(BIN)/golangci-lint run ./...

## ---- generate ----

# What `make gen` writes, below GEN_ROOT. check-gen writes it elsewhere and compares, so that it neither needs a clean
# tree nor touches the one it checks.
GENERATED := gen/go docs/errors.md docs/defaults.md
GEN_ROOT ?= .
IMAGE := $(TMP)/stint.v1.binpb
BASELINE := internal/tools/baseline/stint.v1.binpb

.PHONY: gen
gen: $(BUF) ## Write the stubs and the generated pages of docs
	$(BUF) generate -o $(GEN_ROOT)
	$(BUF) build -o $(IMAGE)
	go run ./internal/docgen $(IMAGE) $(GEN_ROOT)/docs

.PHONY: check-gen
check-gen: $(BUF) ## Check that what is generated is fresh, and the protos are sound and compatible with the frozen API
	rm -rf $(TMP)/fresh
	@$(MAKE) gen GEN_ROOT=$(TMP)/fresh
	@for path in $(GENERATED); do \
		diff -ru "$$path" "$(TMP)/fresh/$$path" || { echo "check-gen: $$path is stale; run: make gen" >&2; exit 1; }; \
	done
	$(BUF) lint
	$(BUF) format -d --exit-code
	$(BUF) breaking --against $(BASELINE)

.PHONY: freeze-api
freeze-api: $(BUF) ## Make the protos of today the API that check-gen holds later ones against
	$(BUF) build --exclude-source-info -o $(BASELINE)
	@echo "$(BASELINE) is rewritten. It goes into a commit of its own whose message names its ADR in docs/adr/."

.PHONY: tools
tools: $(BUF) $(BIN)/grpcurl $(BIN)/golangci-lint ## Build the tools that the other targets use into .tmp/bin

# Each tool has a go.mod of its own, so that their versions do not fight. A first build of buf takes minutes; after that
# Go's cache, keyed by what go.mod and go.sum pin, makes it a matter of seconds. golangci-lint's maintainers advise
# against building it oneself, as the result is untested; a release binary would have to come from GitHub, and the
# module registry, whose sums go.sum checks, is all that a build of this project may need.
$(BIN)/%: internal/tools/%/go.mod internal/tools/%/go.sum
	@mkdir -p $(BIN)
	go build -C internal/tools/$* -trimpath -buildvcs=false -o $(abspath $@) tool
	@touch $@
