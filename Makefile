# Each target works alone on a fresh clone: what it needs it makes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
export HF_HUB_OFFLINE = 1
export HF_HUB_DISABLE_TELEMETRY = 1

.PHONY: quickstart test test-all lint format bench bench-approaches bench-gpu pocket docs clean

quickstart: $(VENV)/.run
	$(BIN)/tailor demo

test: $(VENV)/.test
	$(BIN)/python -m pytest

test-all: $(VENV)/.test
	$(BIN)/python -m pytest -m "not gpu and not network" --timeout=3000

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-approaches: $(VENV)/.test
	$(BIN)/python benchmarks/approaches.py

bench: $(VENV)/.test
	$(BIN)/python benchmarks/pocket_start.py

bench-gpu: $(VENV)/.test
	$(BIN)/python benchmarks/gpu_pictures.py

pocket: $(VENV)/.test
	$(BIN)/python pocket/pretrain.py all

docs: $(VENV)/.test
	$(BIN)/python docs/build.py

# torch comes first and alone: asked for as a dependency, pip would take the newest build with gigabytes of CUDA.
$(VENV)/.torch: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	touch $@

$(VENV)/.run: $(VENV)/.torch pyproject.toml
	$(PIP) -e .
	touch $@

$(VENV)/.test: $(VENV)/.torch pyproject.toml
	$(PIP) -e '.[test]'
	touch $@ $(VENV)/.run

clean:
	rm -rf $(VENV) build *.egg-info
