# Every target sets up what it needs. Nothing but Python >= 3.11 and make is asked for.
#
#   make PYTHON=python3.12 test      another interpreter for a new .venv
#   make test ARGS="-k vimco"        arguments for pytest
#   make test INTERPRETERS=          on .venv alone; by default the quick tests run on every other Python here too
#   make quick CONSTRAINTS=build/oldest.txt VENV=.venv-oldest     the oldest versions allowed; CONSTRAINTS= the newest
#
# torch: PyPI's build for Linux brings CUDA (several GB). For the small CPU build, tell pip where it is before the
# first `make`: PIP_EXTRA_INDEX_URL (PyTorch's CPU index) or PIP_FIND_LINKS (a folder of wheels).

PYTHON  ?= python3
WORKERS ?= 2
ARGS    ?=

CONSTRAINTS  ?= constraints.txt
INTERPRETERS ?= $(if $(ARGS),,$(shell for minor in 11 12 13 14; do \
	python3.$$minor -c '' 2> /dev/null && echo python3.$$minor; done; true))

VENV  := .venv
PY    := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PIP   := pip==25.3# knows dependency groups (25.1) and still applies a machine's constraints to builds (26.2 does not)

# One thread a process: the tests run WORKERS processes, and sums then always come in the same order.
TEST_ENV := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check quick lint format bench records table figures perf rivals docs clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' Makefile

demo: $(STAMP)  ## cluster 1,797 handwritten digits, draw them, say what to type next
	$(VENV)/bin/nvisa demo

VERSION := -c 'import sys; print("%d.%d" % sys.version_info[:2])'

test: lint  ## everything CI runs: lint, types, all tests; then the quick ones on the other Pythons that are here
	$(TEST_ENV) $(PY) -m pytest -n $(WORKERS) $(ARGS)
	@mkdir -p build; code=0; own=$$($(PY) $(VERSION)); for python in $(INTERPRETERS); do \
		version=$$($$python $(VERSION)) || exit 1; test "$$version" != "$$own" || continue; \
		venv=.venv-$$version; log=build/python-$$version.log; \
		on="$(MAKE) --no-print-directory PYTHON=$$python VENV=$$venv"; echo "Python $$version, in $$venv:"; \
		$$on $$venv/.installed > $$log 2>&1 || { echo "its packages cannot be installed ($$log); left out."; continue; }; \
		$$on quick || code=1; done; exit $$code

check: lint quick  ## the same without the slow tests, while working

quick: $(STAMP)  ## the quick tests alone
	$(TEST_ENV) $(PY) -m pytest -n $(WORKERS) -m "not slow" $(ARGS)

lint: $(STAMP)  ## ruff (rules and format) and mypy
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: $(STAMP)  ## let ruff rewrite what it can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: $(STAMP)  ## run what the tables still lack, side by side, and write benchmarks/records/*.json (many hours)
	tables=$$($(PY) -c 'from nvisa.benchmark.experiments import EXPERIMENTS as all; print(*all)') || exit 1; code=0; \
	for table in $$tables; do \
		$(VENV)/bin/nvisa bench $$table $(ARGS) || code=$$?; test $$code != 130 || break; done; exit $$code

figures: $(STAMP)  ## draw docs/figures from the records and from models, made where they are missing
	OMP_NUM_THREADS=1 $(PY) -m nvisa.benchmark.figures $(ARGS)

records: $(STAMP)  ## NVISA's own recipes only
	for table in digits selection; do $(VENV)/bin/nvisa bench $$table $(ARGS) || exit 1; done
	$(VENV)/bin/nvisa bench table1 --methods nvisa $(ARGS)
	$(VENV)/bin/nvisa bench beyond --methods default $(ARGS)

table: $(STAMP)  ## write the tables of README.md and docs/ from the records
	$(PY) -m nvisa.benchmark.tables
	$(PY) -m nvisa.benchmark.performance
	$(PY) benchmarks/rivals/page.py
	$(PY) benchmarks/criteria_page.py
	$(PY) benchmarks/tables_page.py
	$(PY) benchmarks/faults/faults_page.py
	$(PY) benchmarks/scaling/page.py
	$(PY) -m nvisa.benchmark.long_run_page

PERF := .perfenv

perf: $(STAMP) $(PERF)/.installed  ## measure speed and memory into benchmarks/records/performance (half an hour)
	$(PY) -W ignore benchmarks/perf/run.py $(ARGS)
	PYTHONPATH=src $(PERF)/bin/python -W ignore benchmarks/perf/run.py --sections pyro clustpy $(ARGS)
	$(PY) benchmarks/perf/pictures.py

$(PERF)/.installed: benchmarks/perf/requirements.txt  # several GB: torchvision brings PyPI's torch, with CUDA
	$(PYTHON) -m venv $(PERF)
	$(PERF)/bin/python -m pip install --quiet --requirement benchmarks/perf/requirements.txt
	@touch $@

RIVALS := .venv-rivals

rivals: $(STAMP) $(RIVALS)/.installed  ## other libraries on the same data, and docs/rivals.md (many hours; ARGS=--plan lists)
	PYTHONPATH=src $(RIVALS)/bin/python -W ignore benchmarks/rivals/run.py --nvisa $(PY) $(ARGS)
	$(PY) benchmarks/rivals/page.py

$(RIVALS)/.installed: $(wildcard benchmarks/rivals/requirements*.txt)  # ClustPy without its dependencies: they bring CUDA
	$(PYTHON) -m venv $(RIVALS)
	$(RIVALS)/bin/python -m pip install --quiet --requirement benchmarks/rivals/requirements.txt
	$(RIVALS)/bin/python -m pip install --quiet --no-deps --requirement benchmarks/rivals/requirements-alone.txt
	@touch $@

docs: $(STAMP)  ## build/docs/index.html: guides, methods, API from the docstrings
	$(PY) -m sphinx -W -q -b html docs build/docs

clean:  ## remove caches and builds; not .venv, records or data
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -path './.venv*' -prune -o -type d -name __pycache__ -exec rm -rf {} +

# ---- the environment: made when missing, brought up to date when pyproject.toml or its constraints change ----------

define TOO_OLD
nvisa needs Python 3.11 or newer. Name one: make PYTHON=python3.12 (and remove $(VENV) if an older one made it).
endef
define NO_VENV
$(PYTHON) lacks its venv or ensurepip module. On Debian or Ubuntu: apt-get install python3-venv. Then run make again.
endef
define BROKEN
$(VENV) is there, but its Python or pip does not run (moved or copied?). Remove it, rm -rf $(VENV), and run make again.
endef

$(PY):
	@command -v $(PYTHON) > /dev/null || { echo "$(PYTHON) is not here. $(TOO_OLD)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(TOO_OLD)" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' || { echo "$(NO_VENV)" >&2; exit 1; }
	@test ! -L $(PY) || { echo "$(BROKEN)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml $(CONSTRAINTS) | $(PY)
	@$(PY) -m pip --version > /dev/null || { echo "$(BROKEN)" >&2; exit 1; }
	@$(PY) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(TOO_OLD)" >&2; exit 1; }
	@echo "Installing into $(VENV), once; a minute or two, more where torch has to be downloaded."
	$(PY) -m pip install --quiet '$(PIP)'
	$(PY) -m pip install --quiet $(addprefix --constraint ,$(CONSTRAINTS)) --editable '.[all]' --group dev
	@touch $@

build/oldest.txt: pyproject.toml constraints.txt | $(PY)
	@mkdir -p build
	$(PY) .github/scripts/oldest.py > $@
