# make demo: set up and run the whole chain.   make test: set up and run the tests, benchmarks apart.
# make check: what CI runs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test check format

install: .venv/installed

# torch first, by its exact version: a machine with a CPU build at hand keeps it, any other takes pip's default build.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lmm needs Python 3.11 or newer: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt torch==2.13.0
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[viz,dev]'
	touch $@

demo: install
	$(BIN)/lmm demo

test: install
	$(BIN)/python -m pytest -m "not slow" -n auto --maxprocesses 4 --dist loadfile

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
