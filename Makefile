# Each target makes .venv and installs what is missing; the second call starts at once.
#   make demo        segment the sample volumes with the sample student, into demo/
#   make test        the tests (about 10 min on two cores)
#   make test-slow   those that train
#   make gl          those that open a napari window, on a virtual screen
#   make lint        style and types
#   make docs        figures and the reference of commands
PYTHON ?= python3
VENV ?= .venv
OUT ?= demo
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
# One thread per test process: two cores, two processes.
PYTEST := env OMP_NUM_THREADS=1 $(BIN)/python -m pytest
ifeq ($(shell uname -s),Linux)
SCREEN := env QT_QPA_PLATFORM=xcb xvfb-run -a -s "-screen 0 1920x1080x24"
endif
SAMPLES := $(wildcard sample_data/* sample_data/*/* sample_data/*/*/* sample_data/*/*/*/*)

.PHONY: demo test test-slow gl lint docs install constraints clean
.DEFAULT_GOAL := test
.DELETE_ON_ERROR:

demo: install
	$(BIN)/ka2er demo --headless --out $(OUT)

test: install
	$(PYTEST) -n auto --maxprocesses 8

test-slow: install
	$(PYTEST) -m "slow and not gpu and not gl" --timeout 1800

# In a worker: after several napari windows Python may abort at its very end (a reference count in a
# C extension), when all tests have been reported.
gl: install $(STAMPS)/xvfb
	$(SCREEN) $(PYTEST) -n 1 -m "gl and not gpu"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install
	$(BIN)/python docs/figures/data_flow.py
	$(BIN)/python docs/make_reference.py

install: $(STAMPS)/packages $(STAMPS)/libraries

$(STAMPS)/venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed: make PYTHON=python3.11 ..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "no venv module: on Debian or Ubuntu, sudo apt-get install python3-venv" >&2; exit 1; }
	@mkdir -p $(STAMPS) && touch $@

# Versions as in constraints.txt: those the tests ran with.  An editable install holds copies of the
# manifest and the samples, hence the last two.
$(STAMPS)/packages: pyproject.toml constraints.txt napari.yaml $(SAMPLES) | $(STAMPS)/venv
	$(BIN)/pip install --disable-pip-version-check -q -e ".[all,dev,onnx]" -c constraints.txt
	@touch $@

$(STAMPS)/libraries: tools/system_libraries.sh | $(STAMPS)/venv
	tools/system_libraries.sh
	@touch $@

$(STAMPS)/xvfb: tools/system_libraries.sh | $(STAMPS)/venv
	tools/system_libraries.sh xvfb
	@touch $@

# The versions of this .venv become those that everybody gets.
constraints: install
	$(BIN)/python tools/write_constraints.py > constraints.txt

clean:
	rm -rf $(VENV) $(OUT) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
