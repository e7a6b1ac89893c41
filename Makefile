# The commands of the README. PYTHON is the interpreter that makes .venv: 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What only the tests need from Debian: a Slurm, a browser, and Maven, which fetches CoreNLP.
TEST_PACKAGES := slurm-wlm munge slurmd slurmctld slurm-client chromium maven
# Where the tests' metric parts lie: not the user's own cache, in which SPICE would then run for every experiment.
TEST_CACHE := $(CURDIR)/$(VENV)/metric-parts
TARGETS := results/EXP1/metrics.json runs/EXP1_stage_state.json

.PHONY: run test lint format docker-build system system-test spice-test clean-venv

run: $(VENV)/.installed system  ## EXP1, from nothing to its metrics
	@echo "== EXP1: three stages, predictions, metrics"
	PANOLLAVA_CONSOLE=WARNING PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --logger=panollava --cores all -- $(TARGETS)
	@echo "== done: results/EXP1/metrics.json; to look at: results/EXP1/report_metrics.html and report_samples.html"

test: $(VENV)/.installed-test system system-test spice-test  ## the test suite
	@echo "== tests"
	PANOLLAVA_CACHE="$(TEST_CACHE)" PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n 2 --dist loadgroup

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

# Tests that need a package that is not there are skipped, and say so.
system-test:
	@missing=$$(for package in $(TEST_PACKAGES); do \
	  dpkg-query -W -f '$${Status}\n' $$package 2>/dev/null | grep -q 'ok installed' || printf '%s ' $$package; done); \
	install="apt-get install -y --no-install-recommends $$missing"; \
	if [ -z "$$missing" ]; then echo "== test packages: nothing is missing"; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then echo "== test packages: $$missing"; mkdir -p $(VENV); \
	  { apt-get update -q && DEBIAN_FRONTEND=noninteractive $$install -q -o DPkg::Lock::Timeout=300; } >$(VENV)/system-test.log 2>&1 \
	  || { tail -n 5 $(VENV)/system-test.log; echo "== this did not work; tests that need these packages are skipped"; }; \
	else echo "== test packages are missing; tests that need them are skipped. To install them:"; \
	  echo "     $$install"; fi

# CoreNLP for the tests that compute SPICE (386 MB, once).
spice-test: $(VENV)/.installed-test system system-test
	@echo "== SPICE's parts, in $(TEST_CACHE)"; mkdir -p $(TEST_CACHE); \
	PANOLLAVA_CACHE="$(TEST_CACHE)" $(BIN)/panollava setup-metrics 2>$(TEST_CACHE)/setup.log \
	  || { tail -n 5 $(TEST_CACHE)/setup.log; echo "== this did not work; tests of real SPICE are skipped"; }

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
