# The two commands a newcomer needs: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UPSTREAM ?= maildir:var/mail
STORE ?= sqlite:var/relay.db
FUZZ_MINUTES ?= 1

.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: $(VENV)/run ## everything in one go, on this machine alone
	$(BIN)/relay demo

run: $(VENV)/run ## serve on 127.0.0.1:2525; UPSTREAM=smtp://HOST, default a Maildir in var/mail
	@mkdir -p var
	@echo "Send mail to 127.0.0.1:2525; what is accepted goes to $(UPSTREAM)$(if $(filter maildir:%,$(UPSTREAM)), (look into $(UPSTREAM:maildir:%=%)/new))."
	@echo "Figures: http://127.0.0.1:9625/metrics. Ctrl-C ends it."
	@echo "What was suppressed, from another terminal: $(BIN)/relay suppressed --store $(STORE)"
	$(BIN)/relay serve --upstream "$(UPSTREAM)" --store "$(STORE)"

test: needs $(VENV)/dev ## run all tests (as root: they start a Postfix)
	$(BIN)/python -m pytest

check: $(VENV)/dev ## format, lint, types, import contracts, generated pages, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m relay.settings.render --check .
	$(MAKE) test

fix: $(VENV)/dev ## format, mend what lint can mend, write the generated pages anew
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python -m relay.settings.render .
	$(BIN)/python -m tests.parts.pages

bench: $(VENV)/dev ## measure speed, as ratios within one run
	$(BIN)/python bench/fingerprint.py
	$(BIN)/python bench/throughput.py

faults: needs $(VENV)/dev ## break everything around the relay (resumable), write docs/reliability.md
	$(BIN)/python -m tests.faults run

fuzz: $(VENV)/dev ## look for bytes that the judgement cannot bear, for FUZZ_MINUTES
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/fuzz.txt
	PYTHONPATH=tests:. $(BIN)/python tests/fuzz/run.py --minutes $(FUZZ_MINUTES)

needs: ## install the servers that the tests start (Debian packages)
	sh tests/needs.sh

pins: $(VENV)/dev ## resolve all dependencies anew, with hashes
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header -q --upgrade --group build -o requirements/run.txt
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-header -q --upgrade -c requirements/run.txt -o requirements/dev.txt

clean: ## remove what make has made
	rm -rf $(VENV) var .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Both stamps name the same environment; dev holds all that run holds.
$(VENV)/run: requirements/run.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/run.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/dev: requirements/dev.txt $(VENV)/run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	touch $@

.PHONY: help demo run test check fix bench faults fuzz needs pins clean
