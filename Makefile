# make demo   the whole job on generated photos, in a few minutes
# make test   what CI runs: lint, types, tests
# make survive   kills a small project 20 times, and fuzzes tables, YAML and photos
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test survive lint install bench clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python competitions/atmacup11/demo.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest

survive: $(STAMP)
	$(BIN)/python tests/survival/kill_and_resume.py --kills 20
	FUZZ=20 $(BIN)/python -m pytest tests/survival/test_fuzz.py

bench: $(STAMP)
	$(BIN)/python benchmarks/training_loop.py

clean:
	rm -rf $(VENV) build
