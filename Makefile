# make restore   set up, fetch the weights, restore the examples, print a table
# make test      set up, run the tests
# make app       set up, open the web app
# make space     build the folder that one pushes to a Hugging Face Space (build/space)
# make lint      check style
# make types     check annotations
# make docs      write the reference of the Python names to build/docs, a site that needs no network
# make weights   fetch, convert and check every weight file
# make clean     remove the environment and the caches (never photographs, results or fetched weights)
#
# PYTHON=python3.12          another interpreter (3.11 or newer)
# TORCH_FLAGS='--index-url …'  another source of torch, for one kind of GPU say
# ARGS='-k faces'            handed on by `make test` and `make app`; ARGS='-n 0' tests in one process

PYTHON ?= python3
TORCH_FLAGS ?=
ARGS ?=

# One process of tests a core, a file stays in one of them. tests/workers.py sorts the files, so xdist must not.
WORKERS := --numprocesses logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# A stamp stands for "this part is installed". It is older than the files that say what to install when they change.
TORCH_STAMP := $(VENV)/.torch-installed
APP_STAMP := $(VENV)/.app-installed
DEV_STAMP := $(VENV)/.dev-installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup setup-dev restore test app space lint types docs weights clean

help:
	@sed -n 's/^# \{0,1\}//p;/^$$/q' Makefile

setup: $(APP_STAMP)

setup-dev: $(DEV_STAMP)

restore: setup weights
	$(BIN)/studio restore examples/ -o out/examples --sheets --overwrite --report out/examples/report.json

test: setup-dev
	$(BIN)/python -m pytest -q $(WORKERS) $(ARGS)

app: setup weights
	$(BIN)/python app.py $(ARGS)

space: setup
	$(BIN)/python -m studio.ui.space build/space

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup-dev
	$(BIN)/ty check --python $(VENV)

docs: setup-dev
	$(BIN)/python -W error docs/reference.py build/docs

weights: setup
	$(BIN)/studio weights pull

clean:
	rm -rf $(VENV) build .pytest_cache .ruff_cache face_studio.egg-info
	find app.py pipelines studio tests weights -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first and alone: pip then takes a CPU build that lies in a local folder or index before anything
# else can ask for another version.
$(TORCH_STAMP): constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python must be 3.11 or newer; $(PYTHON) is " + sys.version.split()[0] + ": pass PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH_FLAGS) torch
	touch $@

$(APP_STAMP): $(TORCH_STAMP) pyproject.toml
	$(PIP) -e '.[app,heic,video,provenance]'
	touch $@

$(DEV_STAMP): $(APP_STAMP)
	$(PIP) -e '.[app,heic,video,provenance,mcp,onnx,lora,docs,dev]'
	touch $@
