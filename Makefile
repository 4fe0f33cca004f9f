# make demo   sets up .venv and runs the built-in model once
# make test   sets up what the tests need and runs lint, types and tests, in WORKERS processes
# make quick  the tests that need no process, server or model; make test-all also those that repeat for long
# make bench  measures the engine next to llama-server; MODEL=file.gguf for a model of your own

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

WORKERS ?= auto
# Tests of one file stay together: they share servers, models and what was computed.
PARALLEL := --numprocesses=$(WORKERS) --dist=loadscope

GIVEN_CMAKE_ARGS := $(CMAKE_ARGS)
# Only libllama and ggml are built, see tools/lean-llama.cmake. What you set yourself (a GPU, say) comes after and wins.
LEAN := -DLLAVA_BUILD=OFF -DCMAKE_PROJECT_llama.cpp_INCLUDE=$(CURDIR)/tools/lean-llama.cmake
export CMAKE_ARGS := $(LEAN) $(CMAKE_ARGS)

export DEMO := $(BIN)/hermes chat demo --tools demo --yes "What's the weather in Tokyo?"

.PHONY: demo test quick test-all bench fix completions demo-model measure-demo clean

demo: $(VENV)/installed
	@printf '$$ %s\n' "$$DEMO"
	@eval "$$DEMO"

test: $(VENV)/test-installed $(VENV)/clients-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest $(PARALLEL)

quick: $(VENV)/test-installed
	$(BIN)/python -m pytest --quick --quiet --durations=5 --durations-min=0.5

test-all: $(VENV)/test-installed $(VENV)/clients-installed
	$(BIN)/python -m pytest $(PARALLEL) --long

# What is lean about hermes' own llama.cpp must not reach the peers, which need all of it.
bench: $(VENV)/test-installed
	CMAKE_ARGS="$(GIVEN_CMAKE_ARGS)" $(BIN)/python benchmarks/engine.py $(MODEL)

fix: $(VENV)/test-installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

completions: $(VENV)/installed
	$(BIN)/python tools/completions.py

demo-model: $(VENV)/installed
	$(PIP) install --quiet --group demo
	cd demo && ../$(BIN)/python train.py --out demo.gguf

measure-demo: $(VENV)/installed
	cd demo && ../$(BIN)/python evaluate.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "hermes needs Python 3.11 or newer, and $(PYTHON) is older; name a newer one: make PYTHON=python3.12 demo" >&2; exit 1; }
	@echo "[1/3] making $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "Python cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(PIP) install --quiet --upgrade "pip>=25.1"

$(VENV)/installed: $(BIN)/python pyproject.toml tools/lean-llama.cmake
	@echo "[2/3] building llama.cpp for this machine and installing hermes (a few minutes, only the first time)"
	@tools/with-progress $(PIP) install --editable .
	@touch $@
	@echo "[3/3] ready"

$(VENV)/test-installed: $(VENV)/installed
	@$(PIP) install --quiet --group test
	@touch $@

# Clients that cannot live beside hermes: they need other versions of what both stand on.
$(VENV)/clients-installed: $(BIN)/python pyproject.toml
	@$(BIN)/python -m venv --without-pip $(VENV)/clients
	@$(PIP) --python $(VENV)/clients install --quiet --no-compile --group clients
	@touch $@
