# The two commands: `make train` and `make test`. Both set up what they need first.
.DEFAULT_GOAL := help
.PHONY: help setup train test test-rest test-runs-1 test-runs-2 test-all compat lint format lock clean

PYTHON ?= python3
BIN := .venv/bin
ARGS ?=
# Whole runs mostly wait for processes that import, one after another: two chains of them go on beside the other tests.
RUNS_1 := tests/chaos $(addprefix tests/integration/test_,bench_rollout.py recipes.py weight_sync.py)
RUNS := tests/integration tests/chaos
PYTEST = $(BIN)/pytest -m "not gpu and not slow"

help: ## this list
	@grep -hE '^[a-z%-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z%-]+):.*## /\1\t/' | expand -t 16
	@echo
	@echo 'ARGS are handed on: make train ARGS="experiment=tiny_cpu learner.lr=1e-5"'

setup: ## make or refresh .venv (a fraction of a second when there is nothing to do)
	@$(PYTHON) launch/setup.py

train: setup ## train the default model on the default tasks
	@$(BIN)/grpo train $(ARGS)

test: lint ## lint, then every test but those marked gpu or slow
ifeq ($(strip $(ARGS)),)
	@echo "three parts at once; each is shown when it is done"
	@$(MAKE) --no-print-directory -j3 --keep-going --output-sync=target test-rest test-runs-1 test-runs-2
else
	$(PYTEST) $(ARGS)
endif

test-rest:
	$(PYTEST) $(addprefix --ignore=,$(RUNS))

test-runs-1:
	$(PYTEST) $(RUNS_1)

test-runs-2:
	$(PYTEST) tests/integration $(addprefix --ignore=,$(RUNS_1))

test-all: lint ## lint, then every test this machine can run
	$(BIN)/pytest $(ARGS)

compat: setup ## the engine contract against the releases of vLLM in ARGS (default: 0.28.0 0.32.0); needs PyPI
	tests/compat/run.sh $(ARGS)

lint: setup ## ruff, pyright and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

format: setup ## put imports and layout right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-%: setup ## run benchmarks/NAME.py, as in `make bench-step`
	$(BIN)/python benchmarks/$*.py $(ARGS)

lock: ## remake launch/locks/*.txt (UPGRADE=1 moves every pin)
	bash launch/locks/remake.sh

clean: ## remove the environment and all caches; runs/ stays
	rm -rf .venv .venv-setup.log .venv-setup.lock build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +
