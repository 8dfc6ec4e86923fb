# The first two targets need only Python and make: each sets up what it needs in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: train test lint tests tour bench test-all clean help

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

tour: $(VENV)/.examples  ## the short programs of examples/tour
	for program in examples/tour/*.py; do echo "== $$program"; $(BIN)/python $$program || exit 1; done

bench: $(VENV)/.examples  ## timings of this machine
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/big_graph.py

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

clean:
	rm -rf $(VENV) build *.egg-info out .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

help:
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/:/'
