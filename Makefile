# make demo   joints on a photograph, in a fresh .venv       (SOURCE=photo.jpg for one's own)
# make test   .venv with every extra in use, then lint, types, import rules and tests
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
OUT ?= humanpose-out
SOURCE ?=

.PHONY: demo test test-all lint clean

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.demo: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) -e ".[demo]"
	touch $@

.venv/.test: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) torch
	$(PIP) -e '.[train,int8,onnxruntime,ros,gui,demo,dev]'
	touch $@ .venv/.demo

demo: .venv/.demo
	@$(BIN)/python docs/demo.py --output "$(OUT)" $(SOURCE)

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/python -m pytest

test-all: lint
	$(BIN)/python -m pytest -m "slow or not slow"

clean:
	rm -rf .venv build dist humanpose-out
