# make demo   sets up and runs the whole loop      make test   sets up and runs every check and test
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# What the measuring targets write, and what else `ratchet demo` is told.
JSON ?=
ARGS ?=

.PHONY: help install demo test check unit bench bench-log bench-import bench-gateway bench-overload chaos-log chaos-gateway lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## the environment in .venv

$(INSTALLED): pyproject.toml requirements/cpu.lock deploy/install.sh
	@PYTHON="$(PYTHON)" sh deploy/install.sh $(VENV)
	@touch $@

demo: $(INSTALLED)  ## a model gets better from its own traffic (ARGS="--keep", JSON=FILE)
	@$(BIN)/ratchet demo $(if $(JSON),--json $(JSON)) $(ARGS)

test: check unit  ## everything CI runs

check: $(INSTALLED)  ## ruff, mypy, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

unit: $(INSTALLED)  ## pytest (ARGS="-m 'not e2e'" leaves out what needs a real vLLM)
	@$(BIN)/python -m pytest $(ARGS)

bench: $(INSTALLED)  ## how long an alias takes to flip under load (JSON=FILE)
	@$(BIN)/python tests/benchmarks/flip.py $(if $(JSON),--json $(JSON))

bench-log: $(INSTALLED)  ## what the log costs: recording, ingest, queries (JSON=FILE, ARGS="--rows 50000")
	@$(BIN)/python tests/benchmarks/log.py $(if $(JSON),--json $(JSON)) $(ARGS)

bench-import: $(INSTALLED)  ## how long 100,000 Bedrock records take into the log (JSON=FILE)
	@$(BIN)/python tests/benchmarks/import_bedrock.py $(if $(JSON),--json $(JSON)) $(ARGS)

bench-gateway: $(INSTALLED)  ## what the gateway costs beside its peers (JSON=FILE, ARGS=--install gets the peers)
	@$(BIN)/python -m tests.benchmarks.gateway $(if $(JSON),--json $(JSON)) $(ARGS)

bench-overload: $(INSTALLED)  ## what clients get when more comes than the engine can do (JSON=FILE)
	@$(BIN)/python -m tests.benchmarks.gateway.overload $(if $(JSON),--json $(JSON)) $(ARGS)

chaos-log: $(INSTALLED)  ## kills, damage, full disks and cut streams against the log (JSON=FILE)
	@$(BIN)/python -m tests.chaos $(if $(JSON),--json $(JSON)) $(ARGS)

chaos-gateway: $(INSTALLED)  ## cuts, kills, revocations and limits against the meters (JSON=FILE)
	@$(BIN)/python -m tests.chaos.gateway $(if $(JSON),--json $(JSON)) $(ARGS)

lock: $(INSTALLED)  ## resolve requirements/cpu.lock anew from pyproject.toml
	@$(BIN)/python deploy/lock.py > requirements/cpu.lock.new
	@mv requirements/cpu.lock.new requirements/cpu.lock

clean:  ## remove the environment and everything the demo made
	rm -rf $(VENV) data
