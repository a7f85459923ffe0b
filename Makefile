# `make demo` and `make test` do all set-up on a machine with Python 3.11+ and make.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
export PYTHONDONTWRITEBYTECODE :=
UV_VERSION := 0.13.9
UV = $(shell command -v uv 2>/dev/null || echo .tools/uv/bin/uv)
LOCK := requirements/dev.txt

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

.PHONY: setup
setup: .venv/.installed ## Make .venv with both command-line programs, from the lock

.venv/.installed: $(LOCK) pyproject.toml server/pyproject.toml clients/python/pyproject.toml
	@command -v uv >/dev/null 2>&1 || test -x .tools/uv/bin/uv || { $(PYTHON) -m venv .tools/uv && .tools/uv/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); }
	@test -x .venv/bin/python || $(UV) venv --quiet --python $(PYTHON) .venv
	@$(UV) pip sync --quiet --python .venv/bin/python --require-hashes $(LOCK)
	@$(UV) pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable clients/python --editable server
	@touch $@

.PHONY: lock
lock: ## Resolve again and write the hashed lock
	@command -v uv >/dev/null 2>&1 || test -x .tools/uv/bin/uv || { $(PYTHON) -m venv .tools/uv && .tools/uv/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); }
	@mkdir -p requirements
	@$(UV) lock --quiet
	@$(UV) export --quiet --frozen --all-packages --all-extras --all-groups --no-emit-workspace --no-header --format requirements-txt --output-file $(LOCK)

.PHONY: proto
proto: setup ## Generate the Python code from the contract
	@buf generate
	@rm -f clients/python/livekit_auth/v1/{errors,grants,room_config,webhook}_pb2_grpc.pyi
