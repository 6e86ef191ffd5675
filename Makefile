# Everything here works on a machine that has only Python 3.11 (or 3.12, 3.10), git and make.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help env demo test check fresh-decode format lock bench clean

BIN := .venv/bin
METHOD ?= hnerv-boost-tiny
ARGS ?=
BENCH ?= $(shell grep -l __main__ benchmarks/[!_]*.py)
# Not in the lock: pip manages itself; pyliblzfse has no wheel (it needs a compiler) and only viser's Record3D reader uses it.
UNLOCKED := pip pyliblzfse nerfstudio-ext

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

env: .venv/.installed  ## create .venv with the tested packages (any other target does it when needed)

.venv/.installed: pyproject.toml requirements.lock .ci/make-env
	@.ci/make-env
# The mark names the folder where the environment was made: one that was copied, moved or broken is made again.
ifneq ($(shell [ -x .venv/bin/python ] && cat .venv/.installed 2>/dev/null),$(shell pwd -P))
.PHONY: .venv/.installed
endif

demo: env  ## train, score and render METHOD (default hnerv-boost-tiny) on the demo clip
	@$(BIN)/ns-ext demo --method $(METHOD) $(ARGS)

test: env  ## run the whole test suite (ARGS="-k name" for a part)
	@$(BIN)/python -m pytest --durations=10 $(ARGS)

check: env  ## formatting, lint and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/basedpyright

fresh-decode: env  ## decode small .bnrv files in an environment made anew with the package alone
	@.ci/fresh-decode

format: env  ## rewrite the code in the house format
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

lock: env  ## write requirements.lock from what is installed now (upgrade with .venv/bin/pip first)
	@$(BIN)/pip list --format=freeze $(addprefix --exclude ,$(UNLOCKED)) > .venv/lock
	@# Python 3.11.0 is the oldest that must do, and a fresh machine has no compiler.
	@$(BIN)/pip install --quiet --dry-run --ignore-installed --no-deps --only-binary :all: --python-version 3.11 \
		--target .venv/lock-target -r .venv/lock
	@mv .venv/lock requirements.lock
	@touch .venv/.installed
	@wc -l < requirements.lock | xargs printf 'requirements.lock: %s packages\n'

bench: env  ## run the benchmarks (BENCH=benchmarks/NAME.py for one; ARGS go to it)
	@for script in $(BENCH); do echo "== $$script"; $(BIN)/python -m $$(basename $$script .py | sed s/^/benchmarks./) $(ARGS); done

clean:  ## remove the environment and everything that runs have written
	rm -rf .venv outputs renders exports build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
