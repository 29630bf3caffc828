# make install · setup · run · test · test-all · test-cpus · fuzz · bundle · sbom · audit · lock · check · style · docs · format
# · bench
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
STAMP := $(VENV)/.developed
TOOLS := $(VENV)/tools/.installed
# What `make install` installs: run, or node for a machine that only runs nodes and signers.
LOCK ?= run
BUNDLE ?= build/bundle
BROWSER := $(VENV)/browser/chromium
SECONDS ?= 3600
SEED ?= 7
# One worker more than cores, since tests wait for processes and disks; each takes up to 1 GB.
WORKERS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN); echo $$((n < 8 ? n + 1 : 8)))
# A file's tests stay with one worker, so what a file makes once (a model, a finished run) is made once.
PYTEST := $(BIN)/pytest -n $(WORKERS) --dist loadfile
# Concurrent processes with two threads each are up to 40 times slower than with one.
export OMP_NUM_THREADS := 1

.PHONY: install setup run test test-all test-cpus fuzz bundle sbom audit lock check style docs format bench clean

# What a user needs.
install: $(INSTALLED)

# The same, and what tests, checks, documents and benchmarks need.
setup: $(STAMP)

# torch goes first: its pin decides which build pip takes, and the rest then finds it installed. The base that speaks is
# converted now, so that no run waits for it.
$(INSTALLED): requirements.txt locks/$(LOCK).txt pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "$$(grep '^torch==' requirements.txt)"
	$(BIN)/pip install --quiet --require-hashes --no-deps -r locks/$(LOCK).txt
	$(BIN)/pip install --quiet --no-deps -e .
	$(BIN)/python -c "from llm.bases import find; find('smollm2')"
	touch $@

$(STAMP): $(INSTALLED) locks/dev.txt
	$(BIN)/pip install --quiet --require-hashes --no-deps -r locks/dev.txt
	touch $@

# Versions and hashes of everything that requirements*.txt bring, as it is installed and was tested here: change a
# list, install it, test it, and lock it.
lock:
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m tests.locks

# Tools of the supply chain, in an environment of their own.
$(TOOLS): requirements-tools.txt
	test -d $(@D) || $(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet -r requirements-tools.txt
	touch $@

# Wheels of everything that a node runs with, for a machine without a package index, in build/bundle: the locked ones,
# this project's, and with TORCH=1 torch's with what that build brings.
bundle:
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	rm -rf $(BUNDLE) build/lib
	$(BIN)/pip download --quiet --require-hashes --no-deps --only-binary :all: --dest $(BUNDLE) -r locks/node.txt
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir $(BUNDLE) .
	test -z "$(TORCH)" || $(BIN)/pip download --quiet --only-binary :all: --dest $(BUNDLE) "$$(grep '^torch==' requirements.txt)"
	cp locks/node.txt $(BUNDLE)/

# What Foedus runs with, as CycloneDX in build/sbom.json.
sbom: $(TOOLS)
	mkdir -p build
	{ grep '^torch==' requirements.txt; cat locks/run.txt; } > build/sbom.txt
	$(VENV)/tools/bin/cyclonedx-py requirements build/sbom.txt --pyproject pyproject.toml --output-reproducible \
	--short-PURLs --of JSON -o build/sbom.json

# What is known against the locked packages; asks a service, and says so when that cannot be reached.
audit: $(TOOLS) setup
	$(BIN)/python -m tests.advisories $(VENV)/tools/bin/pip-audit locks/run.txt

run: install
	$(BIN)/foedus run

test: setup $(BROWSER)
	$(PYTEST)

test-all: setup $(BROWSER)
	$(PYTEST) -m ""

# Mutated bytes for every reader of foreign ones, for SECONDS all together; SEED begins elsewhere.
fuzz: setup
	FUZZ_SECONDS=$(SECONDS) FUZZ_SEED=$(SEED) $(BIN)/pytest -s tests/fuzzing

# The tests of what computes, with the arithmetic of older CPUs.
test-cpus: setup
	$(BIN)/python -m tests.cpus -n $(WORKERS) --dist loadfile

# A browser for the tests that look at pages: 75 MB, in seconds. Where it cannot be fetched they use the machine's own
# Chromium, or are skipped.
$(BROWSER): tests/browser.mjs | $(STAMP)
	-test "$$(uname -sm)" != "Linux x86_64" || ! command -v npm >/dev/null || { mkdir -p $(@D) \
	&& npm install --silent --ignore-scripts --no-save --no-package-lock --fetch-retries 0 --fetch-timeout 60000 \
	--prefix $(@D) @sparticuz/chromium@153.0.0 axe-core@4.14.1 && node tests/browser.mjs $(@D); } \
	|| echo "no browser could be fetched: tests of pages use the machine's own, or are skipped"

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

style: setup
	$(BIN)/python -m tests.style

docs: setup
	$(BIN)/mkdocs build --strict

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist site *.egg-info
