# make run    write text with the default model          make lint   style, types and the direction of imports
# make test   install what the tests need and run them   make clean  forget the virtual environment and all builds
# make native compile what has changed of the native core
#
# Everything happens in .venv, with the versions of constraints.txt. PYTHON=... chooses the interpreter (3.10 or newer),
# PROMPT=... what `make run` continues, TESTS=... what `make test` runs (a folder, a file, pytest's options).

PYTHON ?= python3
PROMPT ?= Once upon a time
TESTS ?= -n 2
BIN := .venv/bin

# The package is used where it is, and `make native` puts the compiled core beside its sources.
export SKBUILD_EDITABLE_MODE := inplace
export SKBUILD_WHEEL_CMAKE := false
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable

.DELETE_ON_ERROR:
.PHONY: run test native lint style types imports clean

run: native
	@$(BIN)/loquent generate "$(PROMPT)" --max-new-tokens 120

test: .venv/with-test native
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TESTS)

native: .venv/with-build
	@scripts/build_native.sh $(BIN)/python

lint: style types imports

style: .venv/with-lint
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: .venv/with-lint
	@$(BIN)/mypy

imports: .venv/with-lint
	@$(BIN)/lint-imports

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	rm -f src/loquent/native/_core*.so

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Loquent needs Python 3.10 or newer: make PYTHON=...")'
	@echo "Making a virtual environment in .venv ..." >&2
	@$(PYTHON) -m venv .venv

.venv/with-%: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing loquent[$*] into .venv ..." >&2
	@$(INSTALL) ".[$*]"
	@touch $@
