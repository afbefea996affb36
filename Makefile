# Penstock needs python >= 3.11 and make. Everything else goes into .venv, once.
# Another interpreter: make test PYTHON=/path/to/python3.13

SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check bench clean

PYTHON ?=
RUN := .venv/bin/python
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check --no-input
PYTEST_ARGS ?=

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.ready-demo ## Replay a market into a stream, make bars of it, show them. About a minute the first time.
	@$(RUN) -m penstock demo

test: .venv/.ready-dev ## Run all tests (two processes) and show why any was skipped.
	@$(RUN) -m pytest -n 2 --dist loadgroup -rs $(PYTEST_ARGS)

check: .venv/.ready-dev ## Formatting, lint and types.
	@$(RUN) -m ruff format --check --quiet . || { echo 'next step: .venv/bin/ruff format .' >&2; exit 1; }
	@$(RUN) -m ruff check --quiet .
	@$(RUN) -m mypy

bench: .venv-bench/.ready ## Run every benchmark, each with its peers in the same run (an environment of its own).
	@for file in benchmarks/[a-z]*.py; do echo "== $$file"; .venv-bench/bin/python "$$file" || exit 1; done

clean: ## Remove .venv and everything that was built or cached here.
	rm -rf .venv .venv-bench dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis htmlcov .coverage*
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp for each set of packages: made again when pyproject.toml changes.
.venv/.ready-demo: extras = [polars]
.venv/.ready-dev: extras = [dev]
.venv/.ready-%: pyproject.toml | .venv/bin/pip
	@echo 'installing penstock$(extras) into .venv (once) ...' >&2
	@$(PIP) --editable '.$(extras)' || { \
	  echo 'the packages could not be installed; see above. Next step: check the network (or set PIP_INDEX_URL), then run make again' >&2; exit 1; }
	@touch $@

# The peers pin old packages, which must not come into .venv.
.venv-bench/.ready: pyproject.toml | .venv/bin/pip
	@echo 'installing penstock[bench] into .venv-bench (once) ...' >&2
	@.venv/bin/python -m venv --clear .venv-bench
	@.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --no-input --editable '.[bench]'
	@touch $@

.venv/bin/pip:
	@found=; \
	for name in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
	  if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$name; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  echo 'expected python 3.11 or newer, found none on the PATH; next step: install it (Debian, Ubuntu: apt-get install python3 python3-venv), or run make PYTHON=/path/to/python' >&2; exit 1; \
	fi; \
	if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
	  package=$$("$$found" -c 'import sys; print("python3.%d-venv" % sys.version_info[1])'); \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "installing $$package (apt-get) ..." >&2; \
	    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$$package"; } >/dev/null || exit 1; \
	  else \
	    echo "$$found has no venv module; next step: sudo apt-get install $$package, or run make PYTHON=/path/to/python" >&2; exit 1; \
	  fi; \
	fi; \
	"$$found" -m venv --clear .venv
