# `make demo` and `make test` do all set-up. `make help` lists the rest.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo $$p; break; }; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check
SOURCES := contract client server worker trainer web migrations tests bench tools
# A file's tests stay together, for they share fixtures; tests/conftest.py puts the files in order.
IN_PARALLEL := --numprocesses=2 --dist=loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo up test test-fast check format openapi clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "picochat needs Python 3.11 or newer on PATH (or: make PYTHON=/path/to/python)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) has no venv module; on Debian or Ubuntu: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing picochat into $(VENV) (a few minutes the first time)"
	@$(PIP) install -q $$($(BIN)/python tools/torch_index.py) -c constraints.txt -e '.[all]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing picochat with its development tools into $(VENV) (a few minutes the first time)"
	@$(PIP) install -q $$($(BIN)/python tools/torch_index.py) -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.run

demo: $(VENV)/.run ## Train, judge and show a tiny model: the whole factory through REST
	@$(BIN)/picochat demo --spec examples/demo.yaml

up: $(VENV)/.run ## Start the embedded control plane and one worker; Ctrl-C stops both
	@$(BIN)/picochat up

test: $(VENV)/.dev ## All tests
	@$(BIN)/python tools/find_chromium.py
	@$(BIN)/python -m pytest $(IN_PARALLEL)

test-fast: $(VENV)/.dev ## Tests without the slow, e2e and browser ones
	@$(BIN)/python -m pytest $(IN_PARALLEL) -m "not slow and not e2e and not browser"

check: $(VENV)/.dev ## Format, lint, types, import contracts, migrations and openapi.json in step
	@$(BIN)/ruff format --check --quiet $(SOURCES) || { echo "run: make format"; exit 1; }
	@$(BIN)/ruff check --quiet $(SOURCES)
	@$(BIN)/mypy contract client server worker trainer web migrations tools
	@$(BIN)/lint-imports
	@$(BIN)/picochat-server db check
	@$(BIN)/picochat-server openapi | diff -q - docs/openapi.json >/dev/null || { echo "docs/openapi.json is not in step; run: make openapi"; exit 1; }

format: $(VENV)/.dev ## Format and mend what can be mended
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

openapi: $(VENV)/.dev ## Write docs/openapi.json from the app
	@$(BIN)/picochat-server openapi > docs/openapi.json.new && mv docs/openapi.json.new docs/openapi.json

clean: ## Remove the virtual environment, caches and the embedded control plane's folder
	rm -rf $(VENV) .picochat .pytest_cache .mypy_cache .ruff_cache
