# Each target does all of its own set-up: on a fresh clone, `make demo` or `make test` is the whole command.
# PYTHON chooses the interpreter that makes the environment (3.10 or newer); pip's own settings are respected.

PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
TORCH := $(shell grep -E '^torch==' constraints.txt)

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint types bench figures clean

help:
	@echo "make demo      edit a picture with the embedded model, with reasoning; results under out/demo"
	@echo "make test      all tests (slow properties on 50 seeds)"
	@echo "make test-all  all tests (slow properties on 1000 seeds)"
	@echo "make lint      ruff and mypy"
	@echo "make bench     against diffusers, rung by rung and side by side, and cost curves; results under out/bench"
	@echo "make figures   draw the pictures of the README again"

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

figures: $(VENV)/.core
	$(PY) examples/demo.py --edits 3 --output-dir out/figures
	cp out/figures/sheet.png docs/pictures/edits.png

clean:
	rm -rf $(VENV) out .mypy_cache .ruff_cache .pytest_cache
