# Every target sets up what it needs in .venv; nothing has to be prepared by hand.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test check fix docs clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 16

$(VENV)/base.stamp: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/dev.stamp: pyproject.toml $(VENV)/base.stamp
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

setup: $(VENV)/base.stamp ## install the base into .venv (no torch)

setup-dev: $(VENV)/dev.stamp ## install what tests and checks need

demo: setup ## assess and restore real photographs and open the way to a report
	$(BIN)/python examples/demo.py --out demo-output

test: setup-dev ## run all tests
	$(BIN)/python -m pytest

check: setup-dev ## format, lint, types, import contracts, docs in step with code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

fix: setup-dev ## mend format and lint where that can be done
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: setup-dev ## write the generated parts of the documentation anew
	$(BIN)/python docs/generate.py

clean: ## remove what the targets made
	rm -rf $(VENV) demo-output build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
