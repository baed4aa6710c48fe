# One command per wish. `make label` and `make test` set up what they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STATEMENT ?= data/annotations/example.txt

.PHONY: label test check bench train report serve data clean help

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

label: $(VENV)/label  ## label a statement with the model that ships
	$(BIN)/communique label $(STATEMENT)

test: $(VENV)/dev  ## run all tests
	$(BIN)/python -m pytest

check: $(VENV)/dev  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd tests && ../$(BIN)/mypy --config-file ../pyproject.toml -p communique

bench: $(VENV)/dev  ## speed and quality of the segmenters and of the classifier
	$(BIN)/python bench/segmenters.py
	$(BIN)/python bench/label.py

train: $(VENV)/dev  ## train the model that ships, from data to weights
	$(BIN)/communique train

clean:  ## remove what `make` made
	rm -rf $(VENV) build dist *.egg-info

# Only what labelling needs.
$(VENV)/label: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e . -C editable_mode=strict
	@touch $@

# Everything, at the versions of constraints.txt (torch as a build for the processor).
$(VENV)/dev: pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check torch -c constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[train,eval,serve,archive,dev]' -c constraints.txt -C editable_mode=strict
	@touch $@ $(VENV)/label
