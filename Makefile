# The project's commands. CI calls exactly these; `make help` lists them.
#
#   PYTHON     the interpreter that .venv is made with (3.11 to 3.13)
#   PIP_EXTRA  options for pip, such as another index: on Linux the plain wheel of torch brings gigabytes of CUDA
#              libraries along, which a machine without a GPU spares itself with
#              make serve PIP_EXTRA="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
PIP_EXTRA ?=
PORT ?= 8000
CONFIG ?= serve_config.local.yaml

BIN := .venv/bin
RUN := $(BIN)/python

.DEFAULT_GOAL := help
.PHONY: help serve test check format bench clean

help:  ## list the commands
	@sed -n 's/^\([a-z]*\):.*##  *\(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "make %-8s %s\n", $$1, $$2 }'

serve: .venv/installed  ## run the whole system on http://127.0.0.1:8000 until Ctrl-C (PORT=8001: another port)
	@exec $(RUN) -m deployments.local --port $(PORT) --config $(CONFIG)

test: .venv/installed-dev  ## run all tests, those on a Ray cluster included
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m "not ray and not real" -n 2
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m "ray or real"

check: .venv/installed-dev  ## lint, format, types and the rooms of the architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(RUN) -m pytest -q tests/test_architecture.py

format: .venv/installed-dev  ## rewrite the sources in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/installed  ## measure the engine on the miniatures
	$(RUN) -m vlm.bench miniatures/blip-large
	$(RUN) -m vlm.bench miniatures/florence-2-base
	$(RUN) -m vlm.bench miniatures/kosmos-2
	$(RUN) -m vlm.bench miniatures/moondream-2

clean:  ## remove .venv and every cache
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Installed once, and again when pyproject.toml has changed. Editable: sources need no second installation.

.venv/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
		echo "error: $(PYTHON) is not Python 3.11, 3.12 or 3.13; name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/installed: pyproject.toml | .venv/python
	$(RUN) -m pip install --quiet $(PIP_EXTRA) --editable .
	@touch $@

.venv/installed-dev: pyproject.toml | .venv/python
	$(RUN) -m pip install --quiet $(PIP_EXTRA) --editable '.[dev]'
	@touch $@ .venv/installed
