# make            explains the targets
# make demo       builds a real image, offline
# make test       installs what the tests need and runs all of them

GO      ?= go
BIN     := bin
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
SOURCES := $(shell find cmd pkg internal -name '*.go' 2>/dev/null) go.mod go.sum

.DEFAULT_GOAL := help

.PHONY: help
help: ## Explain the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: $(BIN)/executor ## Build bin/executor, a static binary

$(BIN)/executor: $(SOURCES)
	@mkdir -p $(BIN)
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags="-s -w" -o $@ ./cmd/executor

.PHONY: demo
demo: build ## Build the two-stage image of examples/demo, offline, and show what is in it
	@mkdir -p out
	CGO_ENABLED=0 $(GO) build -trimpath -o examples/demo/greeter ./examples/demo
	$(BIN)/executor --context examples/demo --dockerfile examples/demo/Dockerfile --no-push \
		--tar-path out/demo.tar --destination example.com/demo:latest
	@echo; echo "out/demo.tar holds:"; tar -tf out/demo.tar
	@rm -f examples/demo/greeter

.PHONY: test
test: build setup ## Run all tests: units, then whole builds beside BuildKit, a registry and an engine
	$(GO) vet ./...
	$(GO) test ./...
	cd bench && $(GO) vet ./...
	cd integration && $(GO) vet ./... && $(GO) test -p 1 -timeout 30m ./...

.PHONY: unit
unit: ## Run the main module's tests only; nothing is installed
	$(GO) test ./...

.PHONY: setup
setup: ## Install Debian packages and build the tools that the integration tests use
	./integration/setup.sh

.PHONY: fuzz
fuzz: ## Fuzz the parsers and the unpacker, FUZZTIME each (default 1m)
	$(GO) test -run '^$$' -fuzz FuzzUnpack -fuzztime $(or $(FUZZTIME),1m) ./pkg/layers
	$(GO) test -run '^$$' -fuzz FuzzParse -fuzztime $(or $(FUZZTIME),1m) ./pkg/dockerfile

.PHONY: law
law: ## Check the layer law on 5,000 random trees
	$(GO) test ./pkg/snapshot -run Law -law.n 5000 -timeout 60m

.PHONY: bench
bench: build setup ## Measure five cold builds beside BuildKit and buildah
	cd bench && $(GO) run .

.PHONY: lint
lint: ## gofmt and golangci-lint (built from its module the first time)
	@test -z "$$(gofmt -l cmd pkg internal integration)" || { gofmt -l cmd pkg internal integration; exit 1; }
	$(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.5.0 run ./...

.PHONY: clean
clean: ## Remove what was built
	rm -rf $(BIN) out examples/demo/greeter
