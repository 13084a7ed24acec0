# Isthmus: two container clusters use each other's services and containers. `make help` lists what can be made.
SHELL := /bin/bash
export GOFLAGS ?= -buildvcs=false
TOOLS := $(CURDIR)/.tools/bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -X github.com/isthmus-mesh/isthmus/cmd/isthmus/app.version=$(VERSION)
# The name of the image, which charts/isthmus has for its default.
IMAGE ?= isthmus.local/isthmus:$(shell sed -n 's/^appVersion: "\(.*\)"/\1/p' charts/isthmus/Chart.yaml)
GOLANGCI := v2.15.0
GOTESTSUM := v1.13.0
UNIT = $(shell go list ./... | grep -v /e2e)

.DEFAULT_GOAL := help
.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## the binary, bin/isthmus
	CGO_ENABLED=0 go build -trimpath -ldflags "-s -w $(LDFLAGS)" -o bin/isthmus ./cmd/isthmus

.PHONY: images
images: install-testbed build ## bin/isthmus-image.tar, the image of charts/isthmus: isthmus and Envoy, of this machine's architecture
	go run ./e2e/testbed/cmd/testbed image --reference $(IMAGE)

.PHONY: install-testbed
install-testbed: ## what tests and demo need: Envoy, Docker, Kubernetes (built once, about 8 minutes, then cached)
	go run ./e2e/testbed/cmd/testbed install

.PHONY: test
test: install-testbed build $(TOOLS)/gotestsum ## all tests, race detector on, on real clusters
	@scripts/test.sh

.PHONY: test-unit
test-unit: $(TOOLS)/gotestsum ## the tests that start no cluster
	$(TOOLS)/gotestsum --format pkgname-and-test-fails -- -race -timeout 10m $(UNIT)

.PHONY: lint
lint: $(TOOLS)/golangci-lint protolint ## golangci-lint and buf lint
	$(TOOLS)/golangci-lint run
	cd e2e/sdk && $(TOOLS)/golangci-lint run

.PHONY: demo
demo: install-testbed build ## two clusters, two gateways, a tour of the three kinds of request; about a minute
	go run ./e2e/demo/cmd/demo tour

.PHONY: up
up: install-testbed build ## the demo's clusters and gateways, to stay; writes .demo/env
	go run ./e2e/demo/cmd/demo up

.PHONY: down
down: ## ends what `make up` started
	go run ./e2e/demo/cmd/demo down

.PHONY: bench
bench: install-testbed build ## ratios against Envoy alone and stock ext_proc; writes .bench/results.json
	go run ./e2e/bench/cmd/bench

.PHONY: bench-large
bench-large: install-testbed build ## lists of 10,000 pods and 10,000 containers, against asking the clusters themselves
	go run ./e2e/bench/cmd/bench -large 10000

.PHONY: clean
clean: ## what was built here; the cache of the testbed stays
	rm -rf bin .bench .tools

$(TOOLS)/golangci-lint:
	GOBIN=$(TOOLS) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI)

$(TOOLS)/gotestsum:
	GOBIN=$(TOOLS) go install gotest.tools/gotestsum@$(GOTESTSUM)

-include proto/proto.mk
