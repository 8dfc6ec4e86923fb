# The first two targets need only Python and make: each sets up what it needs in .venv.
PYTHON ?= python3
VENV ?= .venv
PEERS ?= .venv-peers
TORCH_INDEX ?= --extra-index-url https://download.pytorch.org/whl/cpu
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: train test lint tests fuzz test-peers tour docs bench test-all clean help

train: $(VENV)/.examples  ## train the digits MLP, compiled
	$(BIN)/python examples/train_mlp.py $(ARGS)

test: lint tests  ## lint and every test

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

tests: $(VENV)/.dev
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

fuzz: $(VENV)/.dev  ## random programs, compiled and by the reference, for five minutes: ARGS="--minutes 60"
	PYTHONPATH=tools $(BIN)/python -m fuzz $(ARGS)

test-peers: $(PEERS)/.peers  ## values and gradients against PyTorch, in a virtual environment of its own
	$(PEERS)/bin/python -m pytest peers -n $(JOBS) $(ARGS)

tour: $(VENV)/.examples  ## the short programs of examples/tour
	for program in examples/tour/*.py; do echo "== $$program"; $(BIN)/python $$program || exit 1; done

docs: $(VENV)/.dev  ## docs/ops.md, from the registry, and the pictures
	$(BIN)/python tools/ops_reference.py
	$(BIN)/python docs/pictures/make.py

bench: $(VENV)/.examples  ## timings beside NumPy, PyTorch, JAX and PyTensor: ARGS="--quick", ARGS="mlp attn"
	TORCH_INDEX="$(TORCH_INDEX)" $(BIN)/python -m benchmarks $(ARGS)

test-all:  ## every Python from 3.11 up that this machine has
	$(PYTHON) tools/test_all.py

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(VENV)/.examples: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[examples]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[examples,test,lint]'
	@touch $@

$(PEERS)/.peers: pyproject.toml
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --upgrade pip
	$(PEERS)/bin/python -m pip install --quiet $(TORCH_INDEX) \
		--editable '.[test]' 'torch==2.13.0'
	@touch $@

clean:
	rm -rf $(VENV) $(PEERS) .venv-bench build *.egg-info out .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/:/'
