# Needs Python 3.11 or newer and make, nothing else. Everything is installed into .venv.
# Each stamp file in .venv says that a step is done; it is redone when pyproject.toml changes.
.POSIX:

PYTHON ?= python3
VENV = .venv
BIN = $(VENV)/bin
INSTALL = -m pip --quiet --disable-pip-version-check --no-input install
PIP = $(BIN)/python $(INSTALL)
PACKAGE = build/package
TORCH = 2.13.0
BENCH = --quick
# A worker per core, at most eight of half a GiB; one that has done its tests takes some of another's.
TESTS = $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

.PHONY: help demo test test-all lint bench package format clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.installed ## train a small network on the built-in digits
	$(BIN)/juanji train digits

test: $(VENV)/.test-tools ## run the tests, slow ones left out
	$(TESTS)

test-all: $(VENV)/.test-tools ## run all tests, slow ones included
	$(TESTS) -m ""

lint: $(VENV)/.test-tools ## check style, format, types and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.rivals ## compare with PyTorch and others; make bench BENCH=--write measures everything
	$(BIN)/python -m benchmarks.compare $(BENCH)

package: $(VENV)/.test-tools ## build the package and use it from an empty folder
	rm -rf $(PACKAGE)
	$(BIN)/python -m build --outdir $(PACKAGE) .
	$(BIN)/python -m venv $(PACKAGE)/venv
	$(PACKAGE)/venv/bin/python $(INSTALL) $(PACKAGE)/*.whl
	mkdir $(PACKAGE)/empty
	cd $(PACKAGE)/empty && ../venv/bin/python -c 'import juanji'
	cd $(PACKAGE)/empty && ../venv/bin/juanji summary lenet5
	cd $(PACKAGE)/empty && ../venv/bin/juanji train digits --epochs 1

format: $(VENV)/.test-tools ## format the code and sort its imports
	$(BIN)/ruff check --select I --fix .
	$(BIN)/ruff format .

clean: ## remove .venv, caches and what was built
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name .git -prune -o -type d -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit("juanji needs Python 3.11 or newer; name one: make PYTHON=python3.11 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml
	$(PIP) --editable .
	@touch $@

$(VENV)/.test-tools: $(VENV)/.installed pyproject.toml
	$(PIP) --editable '.[test]'
	@touch $@

# PyTorch is needed, the others are compared with where they can be had.
$(VENV)/.rivals: $(VENV)/.installed
	@$(BIN)/python -c 'import torch' 2>/dev/null || $(PIP) torch==$(TORCH) || { \
		echo "PyTorch $(TORCH) cannot be installed here. Install any PyTorch 2 into $(VENV) by hand" \
		"(https://pytorch.org/get-started), then make bench again."; exit 1; }
	@for name in onnx onnxruntime openvino jax; do \
		$(BIN)/python -c "import $$name" 2>/dev/null || $(PIP) $$name || echo "comparing without $$name"; done
	@touch $@
