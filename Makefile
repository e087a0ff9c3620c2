# Everything works on a fresh clone with Python 3.11+, make and a C compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-full lint bench bench-policies lock clean

help: ## Say what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(STAMP) ## Make .venv from the hash-pinned constraints file

$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Motley needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: setup ## Run the gateway on an embedded emulated fleet (no GPU), port 8000
	$(BIN)/motley demo $(DEMO_ARGS)

test: setup ## Run the tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-full: setup ## Run all tests, the heavy ones too
	$(BIN)/python -m pytest -m "full or not full" $(PYTEST_ARGS)

lint: setup ## Style, types and the floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup ## Run the benchmarks, side by side, as ratios
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

bench-policies: setup ## Replay every policy on every scenario (25 CPU-minutes) and rewrite the table in README
	$(BIN)/python -m benchmarks.readme evidence

lock: ## Pin dependencies again (needs uv)
	uv pip compile pyproject.toml --group dev --universal --python-version 3.11 \
		--generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
		--quiet -o constraints.txt

clean: ## Remove what the tools left
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build out
