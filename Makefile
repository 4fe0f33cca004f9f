# make demo   sets up .venv and runs the built-in model once
# make test   sets up what the tests need and runs lint, types and tests, in WORKERS processes
# make quick  the tests that need no process, server or model; make test-all also those that take long
# make test-engines  real vLLM and llama-server in front of the demo: 3.5 GB of disk, several minutes
# make lock   writes constraints.txt and constraints-clients.txt anew: the versions that the others install
# make bench  measures the engine next to llama-server; MODEL=file.gguf for a model of your own
#
# CONTRIBUTING.md tells the rest: test-lowest, test-pythons, test LATEST=1.

PYTHON ?= python3
VENV := .venv
CONSTRAINTS := constraints.txt

# LATEST=1 takes the newest versions that pyproject.toml allows, in an environment of its own, each time anew.
ifdef LATEST
VENV := .venv/latest
.PHONY: $(VENV)/installed $(VENV)/test-installed $(VENV)/clients-installed
CLIENTS_VERSIONS := --upgrade --upgrade-strategy eager
VERSIONS := $(CLIENTS_VERSIONS)
else
PIP_VERSION := --constraint $(CONSTRAINTS)
VERSIONS := --constraint $(CONSTRAINTS) --build-constraint $(CONSTRAINTS)
CLIENTS_VERSIONS := --constraint constraints-clients.txt
endif

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
UV := .venv/uv/bin/uv
LOCK := $(UV) pip compile --quiet --universal --upgrade --no-annotate --python-version 3.11 --custom-compile-command 'make lock'

# Without bytecode each of the many processes that tests start would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE

# Three processes for two cores: tests wait for what they start.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) * 3 // 2)')
# Tests of one file stay together: they share servers, models and what was computed. Files come in the order that
# tests/speeds.py gives them, not those with the most tests first.
PARALLEL := --numprocesses=$(WORKERS) --dist=loadscope --no-loadscope-reorder

GIVEN_CMAKE_ARGS := $(CMAKE_ARGS)
# Only libllama and ggml are built, see tools/lean-llama.cmake. What you set yourself (a GPU, say) comes after and wins.
export CMAKE_ARGS := "-DCMAKE_PROJECT_llama.cpp_INCLUDE=$(CURDIR)/tools/lean-llama.cmake" $(CMAKE_ARGS)

export DEMO := $(BIN)/hermes chat demo --tools demo --yes "What's the weather in Tokyo?"

.PHONY: demo test lint suite test-all test-engines quick test-lowest test-pythons test-wheel rebuild lock bench fix completions screens demo-model measure-demo clean

demo: $(VENV)/installed
	@printf '$$ %s\n' "$$DEMO"
	@eval "$$DEMO"

# Both at once: tests wait for what they start, and leave a processor to the others.
test: $(VENV)/test-installed $(VENV)/clients-installed
	@$(MAKE) --no-print-directory --jobs=2 lint suite

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

suite:
	$(BIN)/python -m pytest $(PARALLEL)

test-all: $(VENV)/test-installed $(VENV)/clients-installed
	$(BIN)/python -m pytest $(PARALLEL) --long

quick: $(VENV)/test-installed
	$(BIN)/python -m pytest $(PARALLEL) --quick

# Engines of one's own (HERMES_LLM_VLLM, HERMES_LLM_LLAMA_SERVER, PATH) count, else those that hermes installs.
test-engines: $(VENV)/test-installed
	@for engine in llama-server vllm; do \
	  $(BIN)/hermes engine list --json | grep -q "\"engine\": *\"$$engine\"" || $(BIN)/hermes engine install $$engine || true; \
	done
	HERMES_TEST_ENGINES=1 $(BIN)/python -m pytest -n 0 -rs tests/engine/upstream/test_real_engines.py

# The lower bounds of pyproject.toml, tried: the oldest versions that it allows, but for the processor's own llama.cpp.
test-lowest: $(UV)
	@mkdir -p build
	$(UV) pip compile --quiet --no-header --no-annotate --resolution lowest-direct --python $(PYTHON) \
	  pyproject.toml --group build --group test --output-file build/lowest.txt
	$(MAKE) quick VENV=.venv/lowest CONSTRAINTS=build/lowest.txt

# Each Python that is on this machine: the fast tests, and an installed wheel without the checkout.
test-pythons: $(VENV)/installed
	@$(PIP) wheel --quiet --no-deps $(VERSIONS) --wheel-dir build/wheels llama-cpp-python
	@for version in 3.11 3.12 3.13 3.14; do \
	  for python in python$$version "$$HOME"/.pyenv/versions/$$version.*/bin/python none; do \
	    if "$$python" -c "" 2>/dev/null; then break; fi; \
	  done; \
	  if [ "$$python" = none ]; then echo "Python $$version: not on this machine"; continue; fi; \
	  echo "Python $$version: $$python"; \
	  PIP_FIND_LINKS="$(CURDIR)/build/wheels $$PIP_FIND_LINKS" \
	    $(MAKE) --no-print-directory quick test-wheel VENV=.venv/python$$version PYTHON="$$python" || exit 1; \
	done

test-wheel: $(VENV)/test-installed
	$(BIN)/python -m pytest --long tests/test_install.py -k wheel

lock: $(UV)
	$(LOCK) pyproject.toml --group build --group test --output-file constraints.txt
	$(LOCK) --group pyproject.toml:clients --output-file constraints-clients.txt

# What is lean about hermes' own llama.cpp must not reach the peers, which need all of it.
bench: $(VENV)/test-installed
	CMAKE_ARGS="$(GIVEN_CMAKE_ARGS)" $(BIN)/python benchmarks/engine.py $(MODEL)

fix: $(VENV)/test-installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What commands show at four widths, after a change of it; tests/commands/test_screens.py compares.
screens: $(VENV)/test-installed
	$(BIN)/python tools/screens.py --write

completions: $(VENV)/installed
	$(BIN)/python tools/completions.py
	$(BIN)/python tools/reference.py --write

demo-model: $(VENV)/installed
	$(PIP) install --quiet --group demo
	cd demo && ../$(BIN)/python train.py --out demo.gguf

measure-demo: $(VENV)/installed
	cd demo && ../$(BIN)/python evaluate.py

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "hermes needs Python 3.11 or newer, and $(PYTHON) is older; name a newer one: make PYTHON=python3.12 demo" >&2; exit 1; }
	@echo "[1/3] making $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "Python cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(PIP) install --quiet --upgrade $(PIP_VERSION) "pip>=25.3"

$(VENV)/installed: $(BIN)/python pyproject.toml $(CONSTRAINTS) tools/lean-llama.cmake
	@echo "[2/3] building llama.cpp for this machine and installing hermes (a few minutes, only the first time)"
	@tools/with-progress $(PIP) install $(VERSIONS) --editable .
	@$(BIN)/hermes chat demo --quiet Hi > /dev/null 2>&1 || $(MAKE) --no-print-directory rebuild VENV=$(VENV)
	@touch $@
	@echo "[3/3] ready"

$(VENV)/test-installed: $(VENV)/installed
	@$(PIP) install --quiet $(VERSIONS) --group test
	@touch $@

# pip keeps what it has built, whatever the arguments or the processor were.
rebuild:
	@echo "      the llama.cpp that pip had does not run here; building it anew"
	@tools/with-progress $(PIP) install $(VERSIONS) --force-reinstall --no-deps --no-cache-dir \
	  --no-binary llama-cpp-python llama-cpp-python

# Clients that cannot live beside hermes: they need other versions of what both stand on.
$(VENV)/clients-installed: $(BIN)/python pyproject.toml constraints-clients.txt
	@$(BIN)/python -m venv --without-pip $(VENV)/clients
	@$(PIP) --python $(VENV)/clients install --quiet --no-compile $(CLIENTS_VERSIONS) --group clients
	@touch $@

$(UV): | .venv/bin/python
	@.venv/bin/python -m venv --without-pip .venv/uv
	@.venv/bin/python -m pip --python .venv/uv install --quiet --group lock
