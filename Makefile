# make demo    install, then train an agent in a dream of CartPole and judge it in the real one (minutes)
# make test    install, then run the tests
# make help    the other commands, `make install` among them
#
# Needs a Python of 3.11 or newer:      make demo PYTHON=python3.12
# Everything goes into .venv; a second call finds it there and installs nothing.

PYTHON ?= python3
WORKERS ?= 2
# Options for pytest, e.g. make test PYTEST_ARGS="tests/data -x"
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable
# Two workers with one thread each are faster than one with two: the tests' tensors are small.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow check format install install-dev clean

help:
	@echo 'make demo       install, then run the quickstart: collect, learn the dream, train an agent in it, judge it'
	@echo 'make install    install alone, into .venv'
	@echo 'make test       install, then run the tests that take seconds'
	@echo 'make test-slow  the tests that take minutes'
	@echo 'make check      format, lint, types, dependency rule'
	@echo 'make format     rewrite the source the way `make check` wants it'
	@echo 'make clean      remove the virtual environment and all caches (never runs/)'

demo: install
	$(BIN)/worldsim run quickstart

test: install-dev
	$(PYTEST) -m "not slow" $(PYTEST_ARGS)

test-slow: install-dev
	$(PYTEST) -m slow $(PYTEST_ARGS)

check: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy worldsim tests $(wildcard benchmarks/*.py examples/*.py)
	$(BIN)/lint-imports --no-logo

format: install-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

# A stamp per set of extras. The larger set holds the smaller one, so it writes both.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'Installing worldsim into $(VENV) (a few minutes the first time, mostly torch) ...'
	$(INSTALL) ".[classic]"
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'Installing worldsim and its tools into $(VENV) (a few minutes the first time, mostly torch) ...'
	$(INSTALL) ".[dev,classic,hub,metrics,minari,play,sb3,vizdoom]"
	@touch $@ $(VENV)/.installed

$(BIN)/python:
	@command -v "$(PYTHON)" >/dev/null || { \
	    echo 'worldsim needs Python 3.11 or newer, but "$(PYTHON)" was not found: install it, or name another with PYTHON=...' >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "worldsim needs Python 3.11 or newer, but \"$(PYTHON)\" is $$("$(PYTHON)" --version 2>&1): name another with PYTHON=..." >&2; exit 2; }
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); \
	    echo '"$(PYTHON) -m venv" failed: install the venv module (on Debian and Ubuntu the package python3-venv).' >&2; exit 2; }

clean:
	rm -rf $(VENV) build dist worldsim_rl.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
