# make setup | run | test | lint | bench | soak (ten thousand random storms against the rules of supervision)
# make coverage (each branch of the core of supervision) | mutants (small faults in it, that tests should notice; hours)
# make fuzz (a million inputs against the decoders of the wire, another million against a server)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: setup run test lint bench soak coverage mutants fuzz clean

setup: $(STAMP)
	@echo "Ready: $(BIN)/stokehold --help"

# torch first and by its exact version: any other way of asking may fetch gigabytes of CUDA.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("stokehold needs Python 3.11 or newer, and $(PYTHON) is %d.%d; say: make PYTHON=python3.12" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@echo "Setting up $(VENV), once; it takes a minute or two, and 1.7 GB of disk."
	@echo "1/3 a virtual environment of $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@echo "2/3 torch, by far the largest part"
	@$(PIP) install "$$(grep '^torch==' constraints.txt)"
	@echo "3/3 transformers, the tools for tests, stokehold itself"
	@$(PIP) install -q -c constraints.txt --config-settings editable_mode=compat -e ".[train,test,lint]"
	@$(BIN)/python -m compileall -q actors protocol supervisor  # the first command is as quick as the second
	@touch $@

run: $(STAMP)
	@$(BIN)/python -P -m actors.tools.demo

# Three workers for two cores: tests that start daemons wait a good deal. They steal from the one that has most left.
test: $(STAMP)
	$(BIN)/python -m pytest -n 3 --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python

bench: $(STAMP)
	@$(BIN)/python -P -m benchmarks

soak: $(STAMP)
	@$(BIN)/python -m tests.supervisor.model

# Most that start and kill processes add nothing to it, and take long.
CORE := actor between_lives cancellation cancelled_anywhere context corners dynamic_children giving_up introspection \
	liveness mailbox monitors partitions pending registry replies requests restart_types significant small_promises spawned_ends spec \
	stable_spell start_stop started_by_hand strategies stuck stuck_corners suspension
GUESTS := admission guest rejoining
coverage: $(STAMP)
	@mkdir -p build
	@$(BIN)/python -m coverage run -m pytest -q tests/supervisor/otp $(CORE:%=tests/supervisor/test_%.py) \
		$(GUESTS:%=tests/supervisor/joining/test_%.py)
	@$(BIN)/python -m coverage report

# One part: make mutants OF='supervisor.steps*'. What survived: .venv/bin/mutmut results, .venv/bin/mutmut show NAME.
mutants: $(STAMP)
	@$(PIP) install -q -c constraints.txt --config-settings editable_mode=compat -e ".[mutants]"
	@$(BIN)/mutmut run $(OF)
	@$(BIN)/mutmut results

fuzz: $(STAMP)
	@$(PIP) install -q -c constraints.txt --config-settings editable_mode=compat -e ".[fuzz]"
	@$(BIN)/python -P -m tests.protocol.fuzz

clean:
	rm -rf $(VENV) build mutants *.egg-info
