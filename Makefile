# `make demo` and `make test` set up everything they need on a machine with Python 3.11+ and make.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
PYTHON ?= python3
UV_VERSION := 0.13.9
UV = $(shell command -v uv 2>/dev/null || echo .tools/uv/bin/uv)
LOCK := requirements/dev.txt
EXPORT = $(UV) export --quiet --frozen --no-emit-workspace --no-header --format requirements-txt
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' server/pyproject.toml)
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

# --- set-up ---

.PHONY: setup
setup: .venv/.installed ## Create .venv from the lock, with both command-line programs

.tools/uv/.ready:
	@test "$(UV)" != .tools/uv/bin/uv -o -x .tools/uv/bin/uv || { $(PYTHON) -m venv .tools/uv && .tools/uv/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION); }
	@mkdir -p $(@D) && touch $@

.venv/.installed: .tools/uv/.ready $(LOCK) pyproject.toml server/pyproject.toml clients/python/pyproject.toml
	@echo "Setting up .venv …"
	@test -x .venv/bin/python || $(UV) venv --quiet --python $(PYTHON) .venv
	@$(UV) pip sync --quiet --python .venv/bin/python --require-hashes $(LOCK)
	@$(UV) pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable clients/python --editable server
	@touch $@

.PHONY: lock
lock: .tools/uv/.ready ## Resolve the dependencies again and write the locks with hashes
	@$(UV) lock --quiet --upgrade
	@$(EXPORT) --all-packages --all-extras --all-groups --output-file $(LOCK)
	@$(EXPORT) --package livekit-auth-server --extra redis --extra otlp --extra spiffe --no-dev --output-file requirements/server.txt
	@echo hatchling | $(UV) pip compile --quiet --generate-hashes --constraint $(LOCK) --no-header --no-annotate --output-file requirements/build.txt -

.PHONY: clean
clean: ## Remove build output and environments that aren't in git
	@rm -rf .venv .tools .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist

# --- see it work ---

.PHONY: demo
demo: setup ## Run the main use case end to end on this machine
	@livekit-auth-server demo

.PHONY: demo-livekit
demo-livekit: setup ## Run the demo against a real LiveKit server (needs Go)
	@PYTHONPATH=tests python -m e2e.demo

.PHONY: demo-picture
demo-picture: setup ## Draw what `make demo` prints: docs/images/demo.svg
	@python tools/demo_picture.py

.PHONY: architecture
architecture: ## Draw docs/images/architecture.dot, light and dark (needs dot; Debian: graphviz)
	@$(PYTHON) tools/architecture_picture.py

.PHONY: web-room
web-room: ## Build the page of the browser room example (needs npm)
	@npm --prefix examples/web_room ci --no-audit --no-fund --loglevel error
	@npm --prefix examples/web_room run --silent build

# --- tests ---

.PHONY: test
test: setup ## Run the fast tests
	@pytest --numprocesses 2 --quiet -m "not slow"

.PHONY: test-slow
test-slow: setup ## Run the slow tests: workers, shared Redis, proxies, traces, most examples of property tests
	@pytest --numprocesses 2 --quiet -m "slow or hypothesis" --hypothesis-profile thorough

.PHONY: e2e-livekit
e2e-livekit: setup ## Run the tests against a real LiveKit server (needs Go; npm and Chromium for the browser room)
	@pytest tests/e2e --quiet

.PHONY: e2e-telemetry
e2e-telemetry: setup ## Test dashboard and alerts against a real Prometheus (needs Go and redis-server; the first build takes minutes)
	@pytest tests/telemetry --quiet

.PHONY: e2e-spire
e2e-spire: setup ## Run the tests against real SPIRE (needs Go and a C compiler; the first build takes minutes)
	@PYTHONPATH=tests python -m spire.programs
	@pytest tests/spire --quiet --capture=no

.PHONY: campaign
campaign: setup ## Kill, reload, restart, break and attack the server under load: every token has its record, no call fails
	@PYTHONPATH=tests python -m campaign

.PHONY: fleet
fleet: setup ## Measure how long 200 agent workers wait for tokens when they reconnect at once
	@python -m bench.fleet

.PHONY: compat
compat: setup ## Test the wheels of this tree with themselves, and with each release in both roles
	@pytest tests/compat --quiet

AGENTS_BEFORE := 1.7.1
.PHONY: compat-agents
compat-agents: setup ## Test the agent worker on the livekit-agents release line before the locked one
	@$(UV) pip install --quiet --python .venv/bin/python --target .cache/livekit-agents-$(AGENTS_BEFORE) "livekit-agents==$(AGENTS_BEFORE)"
	@PYTHONPATH=.cache/livekit-agents-$(AGENTS_BEFORE) python -c 'import livekit.agents.version as v; assert v.__version__ == "$(AGENTS_BEFORE)", v.__version__'
	@PYTHONPATH=.cache/livekit-agents-$(AGENTS_BEFORE) pytest tests/unit/client/test_agents_tokens.py tests/contract/client/test_agents.py tests/contract/client/test_agents_cloud.py --quiet

.PHONY: bench
bench: setup ## Measure IssueToken against its peers, the mint, memory and start-up (needs Go)
	@python -m bench.run $(BENCH)

.PHONY: deploy-check
deploy-check: setup ## Test the image's build steps, the chart and the systemd unit (needs Go and systemd-analyze)
	@pytest tests/deploy --quiet

# --- documentation ---

.PHONY: docs
docs: setup ## Build the documentation site into dist/site; broken links, anchors and references fail
	@python -m tools.website.build dist/site
	@echo "dist/site/index.html, or with search: python -m http.server --directory dist/site"

# --- checks ---

.PHONY: check
check: setup ## Check format, lint, types, import contracts, protos, generated code and documents
	@ruff format --check --quiet .
	@ruff check --quiet .
	@mypy
	@lint-imports | tail -n 2
	@buf format --diff --exit-code protos
	@buf lint
	@shopt -s nullglob; for image in protos/released/*.binpb; do buf breaking protos --against "$$image"; done
	@python tools/check_generated.py
	@python tools/errors_document.py --check
	@python tools/unasync.py --check
	@pytest tests/docs --quiet

.PHONY: format
format: setup ## Format code and protos
	@ruff format --quiet .
	@ruff check --fix --quiet . || true
	@buf format --write protos

# --- the contract ---

.PHONY: proto
proto: setup ## Generate code from the protos, and the table of error reasons
	@python tools/check_generated.py --write
	@python tools/errors_document.py

.PHONY: proto-release
proto-release: setup ## Freeze the protos and wheels of this version; later versions must stay compatible with them
	@mkdir -p protos/released tests/compat/wheels
	@test ! -e protos/released/$(VERSION).binpb || { echo "$(VERSION) is released already; raise the version first" >&2; exit 1; }
	@buf build protos --as-file-descriptor-set --exclude-source-info --output protos/released/$(VERSION).binpb
	@$(UV) build --quiet --wheel --no-build-isolation --out-dir tests/compat/wheels clients/python
	@$(UV) build --quiet --wheel --no-build-isolation --out-dir tests/compat/wheels server
	@rm -f tests/compat/wheels/.gitignore
	@ls protos/released tests/compat/wheels
