# make run: install and start the page.  make test: install and pass the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: run install test test-install check bench clean

run: install
	$(BIN)/python app.py $(ARGS)

install: $(VENV)/.installed

$(VENV)/.installed: requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -r requirements.txt
	touch $@

test-install: install $(VENV)/.installed-dev
	sh tests/browser/install_chromium.sh

$(VENV)/.installed-dev: requirements-dev.txt requirements-train.txt requirements.txt
	$(BIN)/python -m pip install --quiet -r requirements-dev.txt
	touch $@

test: test-install
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.installed $(VENV)/.installed-dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy app core/pipelines quantization
	$(BIN)/python -m pytest -q tests/unit/test_architecture.py

bench: $(VENV)/.installed $(VENV)/.installed-dev
	$(BIN)/python -m tests.bench $(ARGS)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
