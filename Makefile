# One command per wish. `make label` and `make test` set up what they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STATEMENT ?= data/annotations/example.txt

.PHONY: help label test check bench bench-sentences bench-serve bench-train train report serve data clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

label: $(VENV)/label  ## label a statement with the model that ships
	$(BIN)/communique label $(STATEMENT)

test: $(VENV)/dev  ## run all tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/dev  ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd tests && ../$(BIN)/mypy --config-file ../pyproject.toml -p communique

bench: $(VENV)/dev bench-sentences  ## speed: ratios within one run
	$(BIN)/python bench/label.py
	$(BIN)/python bench/engines.py
	$(BIN)/python bench/archive.py
	$(BIN)/python bench/kill.py

bench-sentences: $(VENV)/dev  ## sentence segmenters side by side
	$(BIN)/python bench/segmenters.py

bench-serve: $(VENV)/dev  ## the service: against a pipeline a request, idle latency, overload
	$(BIN)/python bench/serve.py

bench-train: $(VENV)/dev  ## an epoch of training against the defaults of transformers' example
	$(BIN)/python bench/train_speed.py

data: $(VENV)/dev  ## check the annotations and print how well annotators agree
	$(BIN)/communique data check
	$(BIN)/communique data agree

serve: $(VENV)/dev  ## the service and its page on loopback
	$(BIN)/communique serve

report: $(VENV)/dev  ## the report of the shipped model on the test split (needs the texts)
	$(BIN)/communique eval --data test --out reports/test

# A base-sized encoder, its vocabulary cut to what official prose uses, its weights trained on their 4-bit grid
# towards the end. Some 75 minutes on two cores with bf16; without it --frozen-layers 6 --epochs 1.5 keeps it under
# three hours and costs some points of macro-F1 (LOG.md).
# Begun again after an interruption, it goes on from where it was.
train: $(VENV)/dev  ## train the model that ships, from data to weights
	$(BIN)/communique train --out runs/small shrink all-mpnet-base-v2
	$(BIN)/communique train --encoder runs/small --weight-bits 4 --grid-from 0.5 --learning-rate 4e-5 \
		--first-epochs 1 --epochs 2 --keep last --swap-names 0.5 --out runs/model --resume

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
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt -C editable_mode=strict
	@touch $@ $(VENV)/label
