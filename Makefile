# make run: install and start the page.  make test: install and pass the tests.  What is installed: requirements.lock.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c requirements.lock

.PHONY: run install test test-install check bench lock newest clean

run: install
	$(BIN)/python app.py $(ARGS)

install: $(VENV)/.installed

$(VENV)/.installed: requirements.txt requirements.lock
	@$(PYTHON) -c "import sys; (3, 11) <= sys.version_info[:2] <= (3, 13) or sys.exit('error: HaploOmni runs on Python 3.11, 3.12 and 3.13; this is ' + sys.version.split()[0] + '. Name another: make run PYTHON=python3.12')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) -r requirements.txt
	touch $@

test-install: $(VENV)/.installed-dev
	sh tests/browser/install_chromium.sh

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt requirements-train.txt
	$(PIP) -r requirements-dev.txt
	touch $@

test: test-install
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/python -m ruff check . .ci
	$(BIN)/python -m ruff format --check . .ci
	$(BIN)/python -m mypy app core quantization
	$(BIN)/python -m pytest -q tests/repository/test_architecture.py tests/repository/test_docstrings.py

bench: $(VENV)/.installed-dev
	$(BIN)/python -m tests.bench $(ARGS)

# exact versions from the ranges in requirements*.in; UPGRADE=1 takes the newest that they allow
lock: $(VENV)/.installed-dev
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python .ci/lock.py $(if $(UPGRADE),--upgrade)

# the newest versions in an environment of their own, and the tests in it; NEXT=1 beyond the ranges, OLDEST=1 their lower ends
newest:
	NEXT=$(NEXT) OLDEST=$(OLDEST) TORCH=$(TORCH) $(PYTHON) .ci/newest.py $(ARGS)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
