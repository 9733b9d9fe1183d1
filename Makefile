# Countersign. `make` alone lists the targets. Needs Python 3.11 or newer and nothing else.

PYTHON ?= python3
VENV ?= .venv
DEMO_DIR ?= var/demo
DEMO_ARGS ?=
TEST_ARGS ?=
TEST_PROCESSES ?= 2
BENCH_ARGS ?=
COUNT ?= 1000
FRAMES ?= 100000
SEED ?= 1

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
INSTALL := $(PIP) install --quiet --require-hashes --only-binary :all:
PROJECT := $(PIP) install --quiet --no-deps --no-build-isolation --editable .

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup setup-dev demo test lint bench tamper fuzz lock fmt
.PHONY: validators validators-engine test-validators stock-reader

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | \
	  awk -F '\t' '{ printf "  make %-18s %s\n", $$1, $$2 }'
	@echo
	@echo '  DEMO_DIR=path           where the demo keeps its network (var/demo)'
	@echo '  DEMO_ARGS=--once        play one business day, check it, stop; status 0 if all held'
	@echo '  DEMO_ARGS=--fresh       delete the network in DEMO_DIR first'
	@echo '  TEST_ARGS=tests/unit    passed to pytest'
	@echo '  COUNT=1000 SEED=1       of tamper: tries of each class, what is drawn'
	@echo '  FRAMES=100000 SEED=1    of fuzz: frames, what is drawn'

setup: $(VENV)/.installed ## Make .venv with what the demo needs (packages pinned by hash)

setup-dev: $(VENV)/.installed-dev ## The same with the tools of test and lint

demo: setup ## Start a whole network on this machine and play a business day
	@DEMO_DIR='$(DEMO_DIR)' exec $(BIN)/countersign demo $(DEMO_ARGS)

# Two processes share the files, each with its own database and chain. The browser's tests run
# after them by themselves: Playwright leaves an event loop running in its process.
test: setup-dev ## Run all tests
ifeq ($(strip $(TEST_ARGS)),)
	@$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile \
	  --no-loadscope-reorder --ignore tests/browser
	@exec $(BIN)/python -m pytest tests/browser
else
	@exec $(BIN)/python -m pytest $(TEST_ARGS)
endif

validators: setup ## Start four geth validators on this machine (docs/chain.md)
	@exec $(BIN)/python -m sandbox.validators

validators-engine: setup ## Fetch and build their engine once (needs Go and some minutes)
	@exec $(BIN)/python -m sandbox.validators --get

test-validators: setup-dev ## Run the chain's tests on such a network, then its faults
	@$(BIN)/python -m sandbox.validators -- \
	  $(BIN)/python -m pytest -m evm tests/contracts tests/integration/chain $(TEST_ARGS)
	@exec $(BIN)/python -m pytest tests/integration/chain/test_validators.py $(TEST_ARGS)

stock-reader: ## Fetch what the test with Go's own log reader is built with (needs Go 1.26)
	@cd tests/integration/api/stock_reader && GOTOOLCHAIN=local GOWORK=off go mod download

lint: setup-dev ## Style, types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lock: ## Resolve requirements*.in anew (needs uv); the locks name no registry
	for name in requirements requirements-dev; do \
	  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-annotate --no-header $$name.in -o $$name.lock; \
	done

fmt: setup-dev ## Format the code
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

bench: setup ## Measure against PostgreSQL's own TPC-B, then gateway and sealing; var/bench*.json
	@$(BIN)/countersign bench $(BENCH_ARGS)
ifeq ($(strip $(BENCH_ARGS)),)
	@status=0; for part in bench-gateway bench-sealing; do \
	  $(BIN)/countersign $$part || status=$$?; \
	done; exit $$status
endif

tamper: setup ## Tamper with all evidence, count what is found; writes var/tamper.json
	@exec $(BIN)/countersign tamper --count $(COUNT) --seed $(SEED)

fuzz: setup ## Send the gateway what no terminal should; writes var/fuzz.json
	@exec $(BIN)/countersign fuzz --frames $(FRAMES) --seed $(SEED)

$(VENV)/.made:
	@command -v '$(PYTHON)' >/dev/null || \
	  { echo 'No "$(PYTHON)" found. Countersign needs Python 3.11 or newer (make PYTHON=...).'; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Countersign needs Python 3.11 or newer; $(PYTHON) is $$('$(PYTHON)' -V 2>&1)."; \
	    echo 'Name another one: make PYTHON=python3.12 ...'; exit 1; }
	@'$(PYTHON)' -m venv $(VENV) || \
	  { echo 'Python could not make a virtual environment (Debian: apt install python3-venv).'; exit 1; }
	@touch $@

$(VENV)/.installed: $(VENV)/.made requirements.lock pyproject.toml
	@echo 'Installing the packages of requirements.lock into $(VENV), about a minute ...'
	@$(INSTALL) -r requirements.lock
	@$(PROJECT)
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.made requirements-dev.lock pyproject.toml
	@echo 'Installing the packages of requirements-dev.lock into $(VENV), about a minute ...'
	@$(INSTALL) -r requirements-dev.lock
	@$(PROJECT)
	@touch $(VENV)/.installed $@
