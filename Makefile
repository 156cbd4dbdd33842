# Each target does all of its own set-up: on a fresh clone, `make demo` or `make test` is the whole command.
# PYTHON chooses the interpreter that makes the environment (3.10 or newer); pip's own settings are respected.

PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
TORCH := $(shell grep -E '^torch==' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint types bench figures embedded clean

help:
	@echo "make demo      edit a picture with the embedded model, with reasoning; results under out/demo"
	@echo "make test      all tests (slow properties on 50 seeds)"
	@echo "make test-all  all tests (slow properties on 1000 seeds)"
	@echo "make lint      ruff and mypy"
	@echo "make bench     against diffusers, rung by rung and side by side, and cost curves; results under out/bench"
	@echo "make figures   make again what depends on the embedded weights: card, tables, pictures (hours; goes on where"
	@echo "               it stopped; FIGURES=\"card gallery\" makes some, --list and --check: benchmarks/figures.py)"
	@echo "make embedded  train the embedded model from nothing and score it (hours; RECIPE=gpu for the larger one)"

# The environment. The pinned torch goes first and alone, so that pip takes the build that the machine is set up for
# and nothing else asks for another one. Nothing is compiled at once: most of it is never imported, and Python compiles what
# is, on first use.
$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(f"Python {sys.version.split()[0]} is too old; 3.10 or newer is needed: make PYTHON=python3.11 ...") if sys.version_info < (3, 10) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.core: pyproject.toml constraints.txt | $(PY)
	$(PY) -m pip install --quiet --no-compile "$(TORCH)"
	$(PY) -m pip install --quiet --no-compile -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.core tests/packages.txt
	$(PY) -m pip install --quiet --no-compile -c constraints.txt -e ".[dev]"
	$(PY) -m pip install --quiet --no-compile --no-deps -r tests/packages.txt
	@touch $@

demo: $(VENV)/.core
	$(PY) examples/demo.py --output-dir out/demo

# A process a core, each with one thread: the tests' models are small, and threads would wait for each other. A file stays
# in one process, in the order of the tree: the slowest come first.
PYTEST := OMP_NUM_THREADS=1 $(PY) -m pytest -n auto --dist loadfile --no-loadscope-reorder

test: $(VENV)/.dev
	$(PYTEST)

test-all: $(VENV)/.dev
	$(PYTEST) --all-seeds

lint: $(VENV)/.dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(VENV)/.dev
	$(PY) -m mypy

bench: $(VENV)/.dev
	$(PY) benchmarks/ladder.py --output-dir out/bench
	$(PY) benchmarks/curves.py --output-dir out/bench
	$(PY) benchmarks/side_by_side.py --output-dir out/bench

figures: $(VENV)/.dev
	$(PY) benchmarks/figures.py $(FIGURES)

# By the recipes for CPUs both trainings work on two parts of a batch side by side, with a thread each.
RECIPE ?= cpu
TRAINED := out/embedded/$(RECIPE)

embedded: $(VENV)/.core
	$(PY) -m chronoedit train autoencoder --recipe recipes/$(RECIPE)/autoencoder.toml \
		--output $(TRAINED)/autoencoder $(if $(filter cpu,$(RECIPE)),--threads 1)
	$(PY) -m chronoedit train embedded --recipe recipes/$(RECIPE)/embedded.toml \
		--autoencoder $(TRAINED)/autoencoder/autoencoder --output $(TRAINED) $(if $(filter cpu,$(RECIPE)),--threads 1)
	$(PY) -m chronoedit eval world --model $(TRAINED)/model --both --output $(TRAINED)/world
	@echo "The model is $(TRAINED)/model, its scores $(TRAINED)/world/report.html. To put it in place of the embedded one,"
	@echo "with the logs of its training, and make again what depends on it:"
	@echo "  cp -r $(TRAINED)/model/. src/chronoedit/weights/tiny/"
	@echo "  mkdir -p recipes/cpu/logs"
	@echo "  cp $(TRAINED)/autoencoder/frames/log.jsonl recipes/cpu/logs/autoencoder.jsonl"
	@echo "  cp $(TRAINED)/autoencoder/decoder_clips/log.jsonl recipes/cpu/logs/decoder_clips.jsonl"
	@echo "  cp $(TRAINED)/log.jsonl recipes/cpu/logs/embedded.jsonl"
	@echo "  make figures"

clean:
	rm -rf $(VENV) out .mypy_cache .ruff_cache .pytest_cache
