# The generator is old on purpose: its code runs on grpcio 1.74 to current and on protobuf 6 and 7.
PROTO_TOOLS := grpcio-tools==1.74.0 mypy-protobuf==3.6.0
PROTO_OUT ?= sidecar
THIRD_PARTY_OUT = $(PROTO_OUT)/rerank_sidecar/third_party

.PHONY: help proto proto-generate settings-page lint format test test-clients

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

proto: ## make what is generated from proto/ with the pinned generator
	python3 -m venv .venv-proto
	.venv-proto/bin/pip install --quiet $(PROTO_TOOLS) setuptools
	PATH="$(CURDIR)/.venv-proto/bin:$$PATH" $(MAKE) proto-generate

proto-generate: ## the same with the generator that is on PATH
	python -m grpc_tools.protoc -Iproto --python_out=$(PROTO_OUT) --pyi_out=$(PROTO_OUT) \
		--grpc_python_out=$(PROTO_OUT) --mypy_grpc_out=$(PROTO_OUT) \
		proto/rerank_sidecar/v1/admin.proto proto/rerank_sidecar/v1/rerank.proto
	mkdir -p $(THIRD_PARTY_OUT)
	python -m grpc_tools.protoc -Iproto/third_party --pyi_out=$(THIRD_PARTY_OUT) \
		--descriptor_set_out=$(THIRD_PARTY_OUT)/descriptors.bin \
		proto/third_party/kserve.proto proto/third_party/tei.proto

settings-page: ## write docs/settings.md from the code
	python -m rerank_sidecar.cli.settings_reference > docs/settings.md

lint: ## what CI checks before the tests
	ruff check .
	ruff format --check .
	mypy sidecar adapters tests benchmarks examples
	buf lint

format: ## rewrite the code as lint wants it
	ruff check --fix .
	ruff format .

test: ## all tests but those of test-clients
	pytest -n 2 --dist loadfile --no-loadscope-reorder

test-clients: ## client libraries that need an environment of their own, against the sidecar on PATH
	@command -v rerank-sidecar
	python3 -m venv .venv-clients
	.venv-clients/bin/pip install --quiet --no-compile --no-deps -r tests/clients/requirements.txt
	SIDECAR_COMMAND="$$(command -v rerank-sidecar)" .venv-clients/bin/pytest -W ignore \
		tests/clients/apart tests/clients/test_cohere.py
