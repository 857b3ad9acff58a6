# Everything runs in .venv, which each target makes or updates if needed; start with `make demo`.

PYTHON ?= python3
VENV ?= .venv
SCALE ?= quick
FIG ?=
NAMES ?=
CASES ?=

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# The tests are many and small: two workers with one thread each are faster than one worker with two threads.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -rs

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow fuzz lint types docs figures claims report reproduce data bench clean

help:  ## List the targets
	@echo "Usage: make TARGET [NAME=VALUE ...]"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-11s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "Values: PYTHON=$(PYTHON) makes the environment VENV=$(VENV); SCALE is smoke, quick (default) or paper."

setup: $(INSTALLED)  ## Make .venv and install everything; runs once, and again when the requirements change

$(INSTALLED): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || \
		{ echo "make: '$(PYTHON)' is not on the PATH; install Python 3.11 or newer, or name one: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: $$("$(PYTHON)" --version) is too old; name a Python 3.11 or newer: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "make: '$(PYTHON)' cannot make environments; install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(INSTALLED)

demo: setup  ## Train on the embedded digits with teleports, without and beside two controls
	$(BIN)/python scripts/demo.py

test: setup  ## Run the tests except the slow ones
	$(PYTEST) -m "not slow"

test-slow: setup  ## Run the slow tests
	$(PYTEST) -m slow

fuzz: setup  ## Run the fuzzers of scripts/fuzz at large: make fuzz, or make fuzz CASES=200 NAMES=command_line
	OMP_NUM_THREADS=1 $(BIN)/python scripts/run_fuzzers.py $(NAMES) $(if $(CASES),--cases $(CASES))

lint: setup  ## Check style and formatting
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

types: setup  ## Check the types of teleport/
	$(BIN)/python -m mypy

figures: setup  ## Redraw figures from their tables in results/, without training: make figures, or make figures FIG=nullspace
	$(BIN)/python scripts/make_figures.py $(FIG)

report: setup  ## Write the report to results/report/: every figure beside its claim and verdicts, without training
	$(BIN)/python scripts/report.py

docs: setup  ## Build the documentation to build/docs/index.html; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict --config-file docs/site/library.yml
	@echo build/docs/index.html

claims: setup  ## Judge the papers' claims on the tables in results/, without training
	$(BIN)/python scripts/claims.py

reproduce: setup  ## Run what a figure needs, then draw it: make reproduce FIG=nullspace/fig8 (or all of a paper: nullspace)
	@test -n "$(FIG)" || { echo "make: say which figure, for instance FIG=nullspace/fig8, or which paper; there are:" \
		$$(cd conf/figure && find . -name '*.yaml' | sort | sed 's,^\./,,; s,\.yaml$$,,') >&2; exit 1; }
	$(BIN)/python scripts/reproduce.py $(FIG) scale=$(SCALE)

data: setup  ## Download data sets: make data NAMES="mnist cifar10", or NAMES=all
	@test -n "$(NAMES)" || { echo "make: say which data sets, for instance NAMES=\"mnist cifar10\" or NAMES=all" >&2; exit 1; }
	$(BIN)/python scripts/fetch_data.py $(NAMES)

bench: setup  ## Measure speeds into results/benchmark/; nothing else should run on the machine
	$(BIN)/python scripts/benchmark.py all

clean:  ## Remove .venv, caches, the report and build products; keeps data, runs and results
	rm -rf $(VENV) build dist results/report *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
