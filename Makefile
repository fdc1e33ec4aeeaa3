# `make demo` and `make test` need Python 3.11 (or later) and make; they set up everything else in .venv.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: demo test lint golden clean help

help:
	@echo "make demo   set up .venv and run the whole journey on embedded images (demo/)"
	@echo "make test   set up .venv and run all tests"
	@echo "make lint   ruff and mypy"
	@echo "make golden rewrite the golden files of the tests, to be reviewed before they are committed"
	@echo "make clean  remove .venv and the demo's output"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "edgetl needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --progress-bar off -c constraints.txt -e '.[all,dev]'
	@touch $@

demo: $(READY)
	$(BIN)/edgetl demo --out demo

# Two tests at once, each with one thread: the tests of a file stay together, and share what they need. Those that load a
# CUDA driver have a process of their own: torch in the same one does not survive it.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart=0 -m "not driver"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m driver

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

golden: $(READY)
	EDGETL_UPDATE_GOLDEN=1 $(BIN)/python -m pytest -k golden

clean:
	rm -rf $(VENV) demo
