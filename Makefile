PYTHON ?= python3
VENV   ?= .venv
PORT   ?= 8000

BIN     := $(VENV)/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')
READY   := $(VENV)/.ready-$(VERSION)
ASSETS  := _build/npm/node_modules/.package-lock.json
BOOK    := _build/.book
BROWSER := _build/pyodide/.ready

# npm and node come from the environment, so a machine needs neither.
NPM_CI := PATH="$(abspath $(BIN)):$$PATH" npm ci --loglevel error --ignore-scripts --no-audit --no-fund
PIP    := $(BIN)/python -m pip --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup book serve lab test notebooks benchmarks lint format readme lock clean

help: ## what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## the environment, in .venv, from the lock

book: $(BOOK) ## build the book, strictly, into _build/html
	@echo "The book: $(CURDIR)/_build/html/index.html"

serve: $(BOOK) ## build the book and serve it on 127.0.0.1
	@echo "http://127.0.0.1:$(PORT)  (Ctrl-C stops it; PORT=8001 takes another port)"
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

lab: $(READY) ## open the chapters in JupyterLab
	@$(BIN)/jupyter lab --ip 127.0.0.1 --notebook-dir book

# What cannot be prepared must not keep the rest from being checked: the tests that need it fail then.
test: $(READY) ## everything that CI checks, with one summary
	-@$(MAKE) --no-print-directory --keep-going book $(BROWSER)
	@$(BIN)/python -m pytest src tests --doctest-modules -n 2 --dist worksteal \
		--cov --cov-report term:skip-covered --quiet

notebooks: $(READY) ## run the chapters and store their outputs
	@$(BIN)/python -m course.notebooks store

benchmarks: $(READY) ## measure, and store what the chapters read
	@$(BIN)/python -m tests.benchmarks

NOTEBOOKS := --line-length=79 --config=format.exclude=[] book

lint: $(READY) ## style, types and spelling
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/ruff format --check $(NOTEBOOKS)
	@$(BIN)/mypy
	@$(BIN)/codespell

format: $(READY) ## put the code into the house style
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format
	@$(BIN)/ruff format $(NOTEBOOKS)

readme: $(READY) ## write the table of patterns into README.md
	@$(BIN)/python -m course.matrix README.md

# One resolution for every platform and Python; the other sets take their pins from it. The readers' set carries no
# hashes, since pip refuses to install the project itself beside them.
COMPILE := $(BIN)/uv pip compile pyproject.toml --no-annotate --custom-compile-command 'make lock' --quiet

lock: $(READY) ## renew the locks after a change (UPGRADE=--upgrade: to the newest versions)
	@$(COMPILE) --universal --python-version 3.11 --only-binary :all: --all-extras --group dev \
		--generate-hashes $(UPGRADE) --output-file requirements/dev.txt > /dev/null
	@$(COMPILE) --universal --python-version 3.11 --only-binary :all: --extra server --extra book --group lab \
		--constraints requirements/dev.txt --output-file requirements/lab.txt > /dev/null
	@$(COMPILE) --python-platform wasm32-pyodide2025 --python-version 3.14 --group pyodide \
		--constraints requirements/dev.txt --generate-hashes --output-file requirements/pyodide.txt > /dev/null

clean: ## remove what was made
	rm -rf $(VENV) _build dist .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	@echo "Setting up $(VENV) with Python $(VERSION)"
	@test -e $@ || $(PYTHON) -m venv --clear $(VENV)
	@$(PIP) install -qq --require-hashes --no-deps --only-binary :all: -r requirements/dev.txt
	@$(PIP) install -qq --no-deps --no-build-isolation --editable .
	@touch $@

$(ASSETS): src/course/site/package.json src/course/site/package-lock.json $(READY)
	@mkdir -p _build/npm && cp src/course/site/package.json src/course/site/package-lock.json _build/npm
	@cd _build/npm && $(NPM_CI)
	@touch $@

# Always the whole book: a page that is not read again does not repeat its warning.
$(BOOK): $(ASSETS) _config.yml _toc.yml $(shell find book src -type f -not -path '*/__pycache__/*' -not -path '*/.ipynb_checkpoints/*')
	@rm -rf _build/html _build/.doctrees
	@$(BIN)/jupyter-book build . -W -n --keep-going --quiet
	@touch $@

$(BROWSER): tests/pyodide/package.json tests/pyodide/package-lock.json requirements/pyodide.txt $(READY)
	@mkdir -p _build/pyodide && cp tests/pyodide/package.json tests/pyodide/package-lock.json _build/pyodide
	@cd _build/pyodide && $(NPM_CI)
	@rm -rf _build/pyodide/wheels
	@$(PIP) download -qq --no-deps --require-hashes --only-binary :all: --implementation cp --python-version 3.14 \
		--abi cp314 --abi none --platform pyemscripten_2026_0_wasm32 --platform any \
		--dest _build/pyodide/wheels -r requirements/pyodide.txt
	@touch $@
