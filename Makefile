# Everything runs inside .venv, which the first target that needs it makes. Needs: make and Python 3.11+.
PYTHON ?= python3
BIN := .venv/bin
WORKDIR ?= runs/fds

.PHONY: install train test lint

install: .venv/.installed

.venv/.installed: setup.py pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

train: install
	$(BIN)/python -m cmpo.main --config=configs/fds.py --workdir=$(WORKDIR)

test: install
	$(BIN)/python -m pytest -q -n 2 --dist loadscope

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
