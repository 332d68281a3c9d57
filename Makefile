# make demo   the whole job on generated images, in a few minutes
# make test   what CI runs: style, types, documentation, tests
# make lint   style and types; `make style` and `make types` run one of them
# make docs   the documentation site in build/site; a broken link fails
# make reference   write the tables of the reference pages anew, from the code
# make notebook    execute the notebook and keep its outputs
# make bench  speed beside what else one would use; bench-gpu on a CUDA device
# make gpu-check   right, fast, good on a CUDA device, in under nine minutes; docs/gpu.md
# make survive   the slow tests; kills a small project 20 times, and commands at many file operations;
#                fuzzes tables, YAML and images
# make lowest   a part of the tests with the oldest Python and packages that are permitted
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
# Empty files that say what is installed: the package alone, and what its tests need too.
PACKAGE := $(VENV)/.package
STAMP := $(VENV)/.installed
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# pip compiles 23,000 modules one after the other; this does so on all cores. Some packages contain
# files that are not for this Python.
COMPILE := $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true

.PHONY: demo test docs reference notebook survive lowest lint style types install bench bench-gpu gpu-check clean

install: $(STAMP)

$(PACKAGE): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --no-compile -e .
	$(COMPILE)
	touch $@

# At once, not after the package alone: pip looks for the versions of all packages each time.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --no-compile -e ".[dev]"
	$(COMPILE)
	touch $(PACKAGE) $@

demo: $(PACKAGE)
	$(BIN)/python competitions/atmacup11/demo.py

lint: style types

style: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# Reads and writes files only; the variable silences an advertisement of the theme.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

reference: $(STAMP)
	$(BIN)/python docs/generated.py

notebook: $(STAMP)
	$(BIN)/python notebooks/execute.py

# The types take one core for most of a minute, style and documentation the other. Then the tests, in
# two processes of one thread each: a module's tests stay in one, and share its fixtures. The longest
# modules come first (tests/conftest.py); tests marked slow are run by `make survive`. Compiled modules
# are kept, also where the environment says otherwise: each process would compile foldsmith again.
test: $(STAMP)
	$(MAKE) --no-print-directory -j 2 types style docs
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2 --dist loadscope --no-loadscope-reorder

survive: $(STAMP)
	$(BIN)/python -m pytest -m slow
	$(BIN)/python tests/survival/kill_and_resume.py --kills 20
	$(BIN)/python tests/survival/commands_to_kill.py --every 25
	FUZZ=20 $(BIN)/python -m pytest tests/survival/test_fuzz.py

# In an environment of its own, which downloads torch 2.6 (with CUDA's libraries: about 5 GB).
LOWEST_PYTHON ?= python3.10
LOWEST := build/lowest
$(LOWEST)/.installed: pyproject.toml constraints-lowest.txt
	$(LOWEST_PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check \
	  -c constraints-lowest.txt -e . pytest pytest-timeout hypothesis
	touch $@

lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/python -m pytest -m "not slow" tests/test_lowest_versions.py tests/test_hashing.py \
	  tests/data/test_images.py tests/data/test_file_formats.py tests/data/test_transforms.py \
	  tests/config tests/blending tests/steps/test_end_to_end.py

bench: $(STAMP)
	$(INSTALL) -e ".[dev,bench]"
	@echo "preprocessing, training, shares, chain, scaling (up to 50,000 images; the script itself goes to 100,000)"
	@started=$$(date +%s) && \
	$(BIN)/python benchmarks/preprocessing.py && \
	$(BIN)/python benchmarks/training.py && \
	$(BIN)/python benchmarks/shares.py && \
	$(BIN)/python benchmarks/chain.py && \
	$(BIN)/python benchmarks/scaling.py --images 1000 10000 50000 && \
	echo "make bench took $$(( $$(date +%s) - started )) s"

# Needs a CUDA device; the same scripts choose larger batches and images there.
bench-gpu: $(STAMP)
	$(INSTALL) -e ".[dev,bench]"
	$(BIN)/python benchmarks/training.py --rounds 5
	$(BIN)/python benchmarks/shares.py
	$(BIN)/python benchmarks/chain.py
	$(BIN)/python benchmarks/processes.py

# With the machine's own Python and torch: a card's machine has them, and they fit its driver.
# IMAGES: folder with train.csv and images/; WHEELS: folder of wheels of missing packages.
OUT ?= build/gpu_check
gpu-check:
	$(PYTHON) benchmarks/gpu_check --out $(OUT) $(if $(IMAGES),--images $(IMAGES)) \
	  $(if $(WHEELS),--wheels $(WHEELS))

clean:
	rm -rf $(VENV) build
