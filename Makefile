PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])')
READY  := $(VENV)/.ready-$(VERSION)

.DEFAULT_GOAL := help
.PHONY: help setup lock

help: ## what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## the environment, in .venv, from the lock

$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	@echo "Setting up $(VENV) with Python $(VERSION)"
	@test -e $@ || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --quiet --require-hashes --only-binary :all: -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# One resolution for every platform and Python; the second set takes its pins from the first. Readers' set carries no
# hashes, since pip refuses to install the project itself beside them.
COMPILE := uv pip compile pyproject.toml --universal --python-version 3.11 --only-binary :all: --no-annotate \
	--custom-compile-command 'make lock' --quiet --extra server --extra book

lock: $(READY) ## resolve the dependencies anew
	@$(BIN)/$(COMPILE) --group dev --generate-hashes --upgrade --output-file requirements/dev.txt > /dev/null
	@$(BIN)/$(COMPILE) --group lab --constraints requirements/dev.txt --output-file requirements/lab.txt > /dev/null
