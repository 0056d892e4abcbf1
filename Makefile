# Everything runs from .venv, which the first target that needs it makes; nothing else is assumed but python 3.11+ and make.
SHELL := /bin/bash
# The first of these that runs, is 3.11 to 3.13, and can make an environment.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
  $$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
UV_VERSION := 0.13.8
VENV := .venv
BIN := $(VENV)/bin
# The lock that .venv was made from; each `make` goes on with it, until another is named: make install LOCK=requirements-cuda12.lock
INSTALLED_LOCKS := $(patsubst $(VENV)/.installed-%,%,$(wildcard $(VENV)/.installed-*))
LOCK ?= $(or $(firstword $(INSTALLED_LOCKS)),requirements.lock)
OTHER_LOCKS := $(wildcard $(filter-out $(LOCK),$(INSTALLED_LOCKS)))
INSTALLED := $(VENV)/.installed-$(LOCK)
PRESET ?= presets/simulated.yaml
export DAGSTER_HOME ?= $(CURDIR)/.dagster_home
export LENS_PIPELINE_HOME ?= $(CURDIR)/.lens_pipeline
export LENS_PIPELINE_LOCAL ?= $(CURDIR)/.lens_pipeline
# What isn't published stays on this machine, also where the home is an s3:// address.
LOCAL := $(if $(filter s3://% S3://%,$(LENS_PIPELINE_HOME)),$(LENS_PIPELINE_LOCAL),$(LENS_PIPELINE_HOME))
export DAGSTER_DISABLE_TELEMETRY := 1
export MLFLOW_DISABLE_TELEMETRY := true
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION := false
export UV_LINK_MODE := copy

.PHONY: help run test check lint types layers bench peers fuzz soak ui mlflow lock clean install
.DEFAULT_GOAL := help

help: ## this list
	@awk -F':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile

$(VENV)/bin/uv:
	@test -n "$(PYTHON)" || { echo "No python 3.11 to 3.13 with venv and pip was found. Install one, or name it: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet uv==$(UV_VERSION)

# What another lock brought goes first: libraries for CUDA 12 and 13 lie in the same folders.
$(INSTALLED): $(LOCK) pyproject.toml | $(VENV)/bin/uv
	$(if $(OTHER_LOCKS),$(BIN)/uv pip uninstall --quiet --python $(BIN)/python $(addprefix --requirements ,$(OTHER_LOCKS)))
	@rm -f $(VENV)/.installed* && touch -t 200001010000 $@  # chosen, not yet done
	$(BIN)/uv pip install --python $(BIN)/python --require-hashes -r $(LOCK)
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

.PRECIOUS: $(INSTALLED)
install: $(INSTALLED) ## make .venv from requirements.lock; LOCK=requirements-cuda12.lock for GPUs as old as the V100

COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-strip-extras --no-header

# The second lock begins as a copy of the first, so that it differs in torch and what that brings along alone.
lock: | $(VENV)/bin/uv ## resolve both locks again from pyproject.toml
	$(BIN)/$(COMPILE) --upgrade --extra dev --output-file requirements.lock pyproject.toml
	cp requirements.lock requirements-cuda12.lock
	$(BIN)/$(COMPILE) --extra dev --extra cuda12 --output-file requirements-cuda12.lock pyproject.toml

$(DAGSTER_HOME)/dagster.yaml: infra/dagster.yaml
	@mkdir -p $(DAGSTER_HOME)
	@cp $< $@

run: $(INSTALLED) $(DAGSTER_HOME)/dagster.yaml ## the whole chain, from a survey to completeness tables; PRESET=presets/NAME.yaml for another
	@PYTHONWARNINGS='ignore:Function,ignore:Parameter' $(BIN)/dagster asset materialize --select '*' -m lens_pipeline.definitions -c $(PRESET)
	@$(BIN)/lens_pipeline summary $(PRESET)

test: $(INSTALLED) ## every test
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: lint types layers test ## lint, types, import layers, then make test

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

layers: $(INSTALLED) $(DAGSTER_HOME)/dagster.yaml
	$(BIN)/lint-imports
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/dg check defs

bench: $(INSTALLED) ## both sides of each ratio in one run; writes benchmarks/results/*.json and docs/performance.md
	$(BIN)/python -m benchmarks

peers: $(INSTALLED) ## other readers for make bench to measure against, each kind in an environment of its own
	@for kind in peers mds ffcv; do \
	  group=peers; test $$kind = peers || group=peers-$$kind; \
	  $(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv-$$kind && \
	  $(BIN)/uv pip install --python .venv-$$kind/bin/python --group $$group > .venv-$$kind/install.log 2>&1 \
	    && echo "$$kind: installed" || echo "$$kind: did not install, see .venv-$$kind/install.log; make bench says so and goes on"; \
	done

fuzz: $(INSTALLED) ## damaged and crafted stamps and parquet for SECONDS each (600), on from where the last run stopped
	$(BIN)/python -m reliability npz_fuzz --seconds $(or $(SECONDS),600)
	$(BIN)/python -m reliability npz_bombs --seconds $(or $(SECONDS),600)
	$(BIN)/python -m reliability parquet_fuzz --seconds $(or $(SECONDS),600)

soak: $(INSTALLED) ## every figure of docs/reliability.md that lacks something of its goal, on for MINUTES together (30)
	$(BIN)/python -m reliability.soak --minutes $(or $(MINUTES),30)

ui: $(INSTALLED) $(DAGSTER_HOME)/dagster.yaml ## Dagster's page on http://127.0.0.1:3000
	$(BIN)/dagster dev --host 127.0.0.1 --port 3000 -w workspace.yaml

mlflow: $(INSTALLED) ## MLflow's page on http://127.0.0.1:5000
	@mkdir -p $(LOCAL)
	$(BIN)/mlflow server --host 127.0.0.1 --port 5000 --workers 1 \
	  --backend-store-uri sqlite:///$(LOCAL)/mlflow.db --default-artifact-root file://$(LOCAL)/mlflow_artifacts

clean: ## remove what tests and tools leave behind; keeps .venv and everything published
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .tmp_dagster_home_* *.egg-info
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
