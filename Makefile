# The commands of the README. PYTHON is the interpreter that makes .venv: 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TARGETS := results/EXP1/metrics.json runs/EXP1_stage_state.json

.PHONY: run test lint format docker-build system clean-venv

run: $(VENV)/.installed system  ## EXP1, from nothing to its metrics
	@echo "== EXP1: three stages, predictions, metrics"
	PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --cores all -- $(TARGETS)
	@echo "== done: results/EXP1/metrics.json"

test: $(VENV)/.installed-test system  ## the test suite
	@echo "== tests"
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n 2

lint: $(VENV)/.installed-test
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow

format: $(VENV)/.installed-test
	$(BIN)/ruff check --fix src tests benchmarks
	$(BIN)/ruff format src tests benchmarks
	$(BIN)/snakefmt Snakefile workflow

docker-build:
	docker build -t panollava .

# What pip cannot bring: Java and WordNet. check-env names the command; it runs here where it may.
system: $(VENV)/.installed
	@command=$$($(BIN)/panollava check-env --print-command); \
	if [ -z "$$command" ]; then echo "== system parts: nothing is missing"; \
	elif [ "$$(id -u)" = 0 ]; then echo "== system parts: $$command"; sh -c "$$command" >$(VENV)/system.log 2>&1 \
	  || { tail -n 5 $(VENV)/system.log; echo "== this did not work; metrics that need these parts will be null with the reason"; }; \
	else echo "== system parts are missing; metrics that need them will be null with the reason. To install them:"; \
	  echo "     $$command"; fi

$(BIN)/uv:
	@echo "== $(VENV): a virtual environment with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; make PYTHON=... names another one")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/uv
	@echo "== installing panollava (PyTorch is the largest part: about 3 GB to fetch)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(BIN)/uv
	@echo "== installing panollava with its test extras"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.installed
