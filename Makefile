# The project's commands. CI calls exactly these; `make help` lists them.
#
# Whatever a command needs is installed first, into .venv, at the versions that requirements/*.lock name. A set-up that
# was interrupted, or that no longer fits, is made again (tools/environment.sh). docs/development.md has the rest.

PYTHON ?= python3
PIP_EXTRA ?=
TORCH_INDEX ?=
PORT ?= 8000
CONFIG ?= serve_config.local.yaml
FUZZ_CASES ?= 10000
FUZZ_SEED ?= 0
BENCH ?= full

BIN := .venv/bin
RUN := $(BIN)/python
LATEST := .venv-latest/bin/python
LOCK := .venv-lock/bin

export PYTHON PIP_EXTRA TORCH_INDEX

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help serve setup test test-nodes test-latest fuzz clients check format bench bench-engine lock lock-clients lock-bench lock-k8s lock-sbom k8s-check k8s-sync image-check clean installed installed-dev

help:  ## list the commands
	@sed -n 's/^\([a-z0-9-]*\):.*##  *\(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "make %-12s %s\n", $$1, $$2 }'
	@echo
	@echo 'PYTHON=python3.12   the interpreter to make .venv with: Python 3.11, 3.12 or 3.13.'
	@echo 'TORCH_INDEX=URL     the package index to take torch from, and torch alone. On Linux, torch from PyPI brings 2.7 GB'
	@echo '                    of CUDA along; without a GPU: make serve TORCH_INDEX=https://download.pytorch.org/whl/cpu'
	@echo 'PIP_EXTRA="..."     options for pip, such as --proxy.'

serve: installed  ## run the whole system on http://127.0.0.1:8000 until Ctrl-C (PORT=8001: another port)
	@exec $(RUN) -m deployments.local --port $(PORT) --config $(CONFIG)

setup: installed-dev  ## install everything that these commands need, and stop there

test: installed-dev  ## run the tests, those on a Ray cluster included
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m "not ray and not real" -n 2
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m "(ray or real) and not nodes"

test-nodes: installed-dev  ## run the tests that need minutes of a quiet machine: several nodes, a lost head, a day's load
	OMP_NUM_THREADS=1 $(RUN) -m pytest -m nodes

test-latest:  ## run all tests on the newest versions that pyproject.toml allows, in .venv-latest
	$(PYTHON) -m venv --clear .venv-latest
	$(if $(TORCH_INDEX),$(LATEST) -m pip --disable-pip-version-check install --quiet --no-deps \
	    --index-url $(TORCH_INDEX) "$$(grep -o 'torch>[^"]*' pyproject.toml)" $(PIP_EXTRA))
	$(LATEST) -m pip --disable-pip-version-check install --quiet --editable '.[dev]' $(PIP_EXTRA)
	OMP_NUM_THREADS=1 $(LATEST) -m pytest -m "not ray and not real" -n 2
	OMP_NUM_THREADS=1 $(LATEST) -m pytest -m "(ray or real) and not nodes"

fuzz: installed-dev  ## try 10,000 requests made of the OpenAPI document (FUZZ_CASES, FUZZ_SEED)
	FUZZ_CASES=$(FUZZ_CASES) FUZZ_SEED=$(FUZZ_SEED) $(RUN) -m pytest tests/router/openapi/test_fuzz.py -n 2 --timeout 7200

clients: installed-dev  ## ask the running system by means of other people's clients, in .venv-clients*
	$(RUN) -m tools.clients

check: installed-dev  ## lint, format, types, import rules, and known vulnerabilities
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(RUN) -m pytest -q tests/test_architecture.py
	$(RUN) -m tools.audit

format: installed-dev  ## rewrite the sources in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

k8s-check: installed-dev  ## check the Kubernetes manifests without a cluster, in .venv-k8s
	$(RUN) -m tools.k8s check

k8s-sync: installed  ## write the files in k8s/ that are copies of others, after a change of serve_config.yaml
	$(RUN) -m tools.k8s sync

image-check: installed-dev  ## build the image with buildah, and test its layers and its command (root on Linux)
	$(RUN) -m tools.image check

bench: installed  ## compare the system with others over HTTP, in .venv-bench (BENCH=quick: under 4 minutes)
	$(RUN) -m benchmarks.http --scale $(BENCH)

bench-engine: installed  ## measure the engine alone on the miniatures, beside transformers
	$(RUN) -m vlm.bench miniatures/blip-large
	$(RUN) -m vlm.bench miniatures/florence-2-base
	$(RUN) -m vlm.bench miniatures/kosmos-2
	$(RUN) -m vlm.bench miniatures/moondream-2

lock:  ## write requirements/*.lock anew: the newest versions that pyproject.toml allows
	$(PYTHON) -m venv --clear .venv-lock
	$(LOCK)/python -m pip --disable-pip-version-check install --quiet 'uv>=0.9,<1' $(PIP_EXTRA)
	$(LOCK)/python -m tools.lock $(LOCK)/uv

lock-clients:  ## write requirements/clients*.txt anew: the newest clients
	$(PYTHON) -m venv --clear .venv-lock
	$(LOCK)/python -m pip --disable-pip-version-check install --quiet 'uv>=0.9,<1' $(PIP_EXTRA)
	$(LOCK)/python -m tools.lock $(LOCK)/uv clients

lock-bench:  ## write requirements/bench.txt anew: the newest LitServe and what draws the plots
	$(PYTHON) -m venv --clear .venv-lock
	$(LOCK)/python -m pip --disable-pip-version-check install --quiet 'uv>=0.9,<1' $(PIP_EXTRA)
	$(LOCK)/python -m tools.lock $(LOCK)/uv bench

lock-k8s:  ## write requirements/k8s.txt anew: the newest kubectl, Helm and schemas
	$(PYTHON) -m venv --clear .venv-lock
	$(LOCK)/python -m pip --disable-pip-version-check install --quiet 'uv>=0.9,<1' $(PIP_EXTRA)
	$(LOCK)/python -m tools.lock $(LOCK)/uv k8s

lock-sbom:  ## write requirements/sbom.txt anew: the newest tool that lists the image's packages
	$(PYTHON) -m venv --clear .venv-lock
	$(LOCK)/python -m pip --disable-pip-version-check install --quiet 'uv>=0.9,<1' $(PIP_EXTRA)
	$(LOCK)/python -m tools.lock $(LOCK)/uv sbom

clean:  ## remove every environment and every cache
	rm -rf .venv .venv-latest .venv-lock .venv-clients .venv-clients-openai2 .venv-bench .venv-k8s benchmarks/results tests/clients/node/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

installed:
	@tools/environment.sh run $(firstword $(MAKECMDGOALS))

installed-dev:
	@tools/environment.sh dev $(firstword $(MAKECMDGOALS))
