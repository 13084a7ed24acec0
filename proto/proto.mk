# The protocol between gateways: generating, linting, and the check that a change breaks no older peer. Included by the
# Makefile; every target runs on a fresh clone.
BUF_VERSION             := v1.75.0
PROTOC_GEN_GO_VERSION   := v1.36.12
PROTOC_GEN_GRPC_VERSION := v1.6.2
VALIDATE_MODULE         := github.com/envoyproxy/protoc-gen-validate
VALIDATE_VERSION        := v1.3.3

TOOLS_DIR := $(CURDIR)/.tools
TOOLS_BIN := $(TOOLS_DIR)/bin
# One stamp for each version, so that a new version is installed over an old binary.
TOOL_STAMPS := $(TOOLS_DIR)/stamps
PROTO_TOOLS := $(TOOL_STAMPS)/buf-$(BUF_VERSION) $(TOOL_STAMPS)/protoc-gen-go-$(PROTOC_GEN_GO_VERSION) \
	$(TOOL_STAMPS)/protoc-gen-go-grpc-$(PROTOC_GEN_GRPC_VERSION) $(TOOL_STAMPS)/protoc-gen-validate-$(VALIDATE_VERSION) \
	$(TOOL_STAMPS)/validate-rules-$(VALIDATE_VERSION)

# $(call install-tool,PACKAGE@VERSION): tools are installed apart from go.mod, so that none of their dependencies is ours.
define install-tool
	@mkdir -p $(TOOLS_BIN) $(TOOL_STAMPS)
	GOBIN=$(TOOLS_BIN) GOFLAGS= go install $(1)
	@touch $@
endef

$(TOOL_STAMPS)/buf-$(BUF_VERSION):
	$(call install-tool,github.com/bufbuild/buf/cmd/buf@$(BUF_VERSION))
$(TOOL_STAMPS)/protoc-gen-go-$(PROTOC_GEN_GO_VERSION):
	$(call install-tool,google.golang.org/protobuf/cmd/protoc-gen-go@$(PROTOC_GEN_GO_VERSION))
$(TOOL_STAMPS)/protoc-gen-go-grpc-$(PROTOC_GEN_GRPC_VERSION):
	$(call install-tool,google.golang.org/grpc/cmd/protoc-gen-go-grpc@$(PROTOC_GEN_GRPC_VERSION))
$(TOOL_STAMPS)/protoc-gen-validate-$(VALIDATE_VERSION):
	$(call install-tool,$(VALIDATE_MODULE)@$(VALIDATE_VERSION))

# The rules file comes from the module cache. install, because the cache is read-only and a copy must be replaceable.
$(TOOL_STAMPS)/validate-rules-$(VALIDATE_VERSION):
	@mkdir -p $(TOOLS_DIR)/validate/validate $(TOOL_STAMPS)
	dir=$$(cd / && go mod download -json $(VALIDATE_MODULE)@$(VALIDATE_VERSION) | sed -n 's/^\t"Dir": "\(.*\)",$$/\1/p') && \
		install -m 0644 "$$dir/validate/validate.proto" $(TOOLS_DIR)/validate/validate/validate.proto
	@touch $@

.PHONY: generate protolint protobreaking checkgenerate
generate: $(PROTO_TOOLS) ## generate the Go code of the protocol (proto/gen)
	$(TOOLS_BIN)/buf generate

protolint: $(PROTO_TOOLS) ## lint the protocol
	$(TOOLS_BIN)/buf lint
	$(TOOLS_BIN)/buf format --diff --exit-code proto

# The base is the main branch's own protocol, laid out beside the rules file, which git does not hold. Where main has no
# protocol yet, nothing can break.
protobreaking: $(PROTO_TOOLS) ## check that the protocol breaks nobody who speaks main's
	@base=$$(git rev-parse --verify --quiet main || git rev-parse --verify --quiet origin/main || true); \
	if [ -z "$$base" ] || ! git cat-file -e $$base:proto/isthmus 2>/dev/null; then \
		echo "protobreaking: main holds no protocol to compare with"; exit 0; \
	fi; \
	rm -rf $(TOOLS_DIR)/base && mkdir -p $(TOOLS_DIR)/base/.tools && \
	git archive $$base proto buf.yaml | tar -x -C $(TOOLS_DIR)/base && \
	cp -r $(TOOLS_DIR)/validate $(TOOLS_DIR)/base/.tools/validate && \
	$(TOOLS_BIN)/buf breaking --against $(TOOLS_DIR)/base

checkgenerate: generate ## check that the generated code is what the protocol makes
	@test -z "$$(git status --porcelain -- proto/gen)" || { \
		git status --short -- proto/gen; echo "checkgenerate: proto/gen differs from what buf makes: commit it"; exit 1; }
