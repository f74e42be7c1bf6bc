# The two commands a newcomer needs: make demo, make test.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UPSTREAM ?= maildir:var/mail
STORE ?= sqlite:var/relay.db
FUZZ_MINUTES ?= 1
READERS ?= 8500
SEED ?= 2
REF ?= HEAD~1
COVERAGE_TESTS ?= tests/unit tests/contract tests/cli tests/e2e/test_upstream_kinds.py
BENCH ?=
BUILDER ?= docker
RELEASE = $(VENV)/release/bin
# One more than there are processors, since many tests wait.
PARALLEL ?= --numprocesses $(shell echo $$(($$(nproc) + 1))) --maxprocesses 4 --dist loadfile
# Of the last commit, so that two builds of it are equal byte by byte; outside of a clone, 1980.
export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 315532800)
OTHER_VENV = .venv-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 24

demo: $(VENV)/run ## everything in one go, on this machine alone
	$(BIN)/relay demo

run: $(VENV)/run ## serve on 127.0.0.1:2525; UPSTREAM=smtp://HOST, default a Maildir in var/mail
	@mkdir -p var
	@echo "Send mail to 127.0.0.1:2525; what is accepted goes to $(UPSTREAM)$(if $(filter maildir:%,$(UPSTREAM)), (look into $(UPSTREAM:maildir:%=%)/new))."
	@echo "What happens, as a page: http://127.0.0.1:9625/. Ctrl-C ends it."
	@echo "What was suppressed, from another terminal: $(BIN)/relay suppressed --store $(STORE)"
	exec $(BIN)/relay serve --upstream "$(UPSTREAM)" --store "$(STORE)"

test: needs $(VENV)/dev ## run all tests (as root: they start a Postfix)
	$(BIN)/python -m pytest $(PARALLEL)

test-other: needs other ## run unit and contract tests with another Python: PYTHON=python3.13
	$(OTHER_VENV)/bin/python -m pytest $(PARALLEL) tests/unit tests/contract

other: # the environment of test-other
	$(MAKE) PYTHON=$(PYTHON) VENV=$(OTHER_VENV) $(OTHER_VENV)/dev

check: $(VENV)/dev ## format, lint, types, import contracts, generated pages, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m relay.settings.render --check .
	$(BIN)/python -m relay.monitor.reference --check .
	$(MAKE) test

coverage: needs $(VENV)/dev ## branch coverage of each package by the tests
	$(BIN)/coverage erase
	# Coverage in the subprocess changes the exit status of a command whose output cannot be written.
	$(BIN)/coverage run -m pytest -k "not full_disk" $(COVERAGE_TESTS)
	$(BIN)/python tests/coverage_report.py

fix: $(VENV)/dev ## format, fix what ruff can fix, write the generated pages again
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python -m relay.settings.render .
	$(BIN)/python -m relay.monitor.reference .
	$(BIN)/python -m tests.parts.pages

bench: $(VENV)/dev ## measure speed, as ratios within one run
	$(BIN)/python bench/fingerprint.py
	$(BIN)/python bench/throughput.py
	$(BIN)/python bench/throughput.py traces

bench-against: needs $(VENV)/dev ## compare the speed with that of a commit: REF=main BENCH='--rounds 8'
	$(BIN)/python bench/against.py $(REF) $(BENCH)

faults: needs $(VENV)/dev ## break everything around the relay (resumable), write docs/reliability.md
	$(BIN)/python -m tests.faults run

fuzz: $(VENV)/dev ## feed random messages to the judge, for FUZZ_MINUTES
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/fuzz.txt
	PYTHONPATH=tests:. $(BIN)/python tests/fuzz/run.py --minutes $(FUZZ_MINUTES)

fuzz-sessions: $(VENV)/dev ## feed random octets to each state of a session, for FUZZ_MINUTES each
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/fuzz.txt
	PYTHONPATH=tests:. $(BIN)/python tests/fuzz/run.py --minutes $(FUZZ_MINUTES) --state all

readers: needs $(VENV)/dev ## compare fingerprints with what mail readers show, for READERS pairs
	READERS_PAIRS=$(READERS) READERS_SEED=$(SEED) $(BIN)/python -m pytest -q -n 0 tests/unit/judge/test_readers.py

wheel: $(VENV)/run # the wheel, alone in build/wheel
	rm -rf build/wheel
	$(BIN)/python -m hatchling build -t wheel -d build/wheel >/dev/null

deb: wheel ## build the Debian package for this system, in dist (packages debhelper, python3-venv)
	packaging/deb.sh build/wheel/*.whl dist

image: $(VENV)/run ## build the container image; with BUILDER=podman by Podman
	BUILDAH_FORMAT=docker $(BUILDER) build -t smtp-dedup-relay \
	    --build-arg VERSION=$$($(BIN)/python -c 'import relay; print(relay.__version__)') .

host-test: $(VENV)/run ## boot bare systems of Debian 12 and 13, install the package, test the service there (as root)
	packaging/host/run.sh bookworm trixie

test-packages: packages ## install and purge the package, build and run the image (as root)
	$(MAKE) check-packages

packages: needs-packages $(VENV)/release deb build/root.tar # what check-packages tests

check-packages: # test what packages has built
	$(RELEASE)/hadolint Dockerfile
	$(RELEASE)/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml config/compose/avideo.yaml
	$(BIN)/python -m pytest $(PARALLEL) packaging

release: $(VENV)/release ## test, and build the files of a release in dist: wheel, source, deb, SBOM, checksums (as root)
	$(MAKE) check
	packaging/release.sh dist
	$(MAKE) test-packages
	cd dist && sha256sum --check --quiet SHA256SUMS

build/root.tar: # a bare system like this one
	@mkdir -p build
	. /etc/os-release && mmdebstrap --quiet --variant=minbase --include=python3,systemd,iproute2,procps \
	    "$$VERSION_CODENAME" $@

needs-packages: # install what packages and check-packages need (Debian packages)
	sh packaging/needs.sh

needs: ## install the servers and readers that the tests start (Debian and npm packages)
	sh tests/needs.sh

pins: $(VENV)/dev ## update all pinned dependencies, with hashes
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header -q --upgrade -o requirements/run.txt
	$(BIN)/uv pip compile --group build --universal --python-version 3.11 --generate-hashes --no-header -q --upgrade -c requirements/run.txt -o requirements/build.txt
	$(BIN)/uv pip compile pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-header -q --upgrade -c requirements/run.txt -c requirements/build.txt -o requirements/dev.txt
	$(BIN)/uv pip compile --group release --universal --python-version 3.11 --generate-hashes --no-header -q --upgrade -c requirements/dev.txt -o requirements/release.txt

clean: ## remove all that make created
	rm -rf $(VENV) .venv-* var build dist .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis

# Both files stamp the same environment: dev installs what the tests need into it.
$(VENV)/run: requirements/run.txt requirements/build.txt pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
	    echo "$(PYTHON) is missing. On Debian or Ubuntu: sudo apt-get install $(notdir $(PYTHON))-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) has no venv module. On Debian or Ubuntu: sudo apt-get install $(notdir $(PYTHON))-venv" >&2; exit 1; }
	@$(BIN)/python -c 'import pip' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes \
	    -r requirements/run.txt -r requirements/build.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

$(VENV)/dev: requirements/dev.txt $(VENV)/run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	touch $@

# An environment of its own: these tools need other libraries than the relay and its tests.
$(VENV)/release: requirements/release.txt $(VENV)/dev
	$(BIN)/python -m venv --clear $@
	$(RELEASE)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/release.txt
	touch $@

.PHONY: help demo run test test-other other check coverage fix bench bench-against faults fuzz fuzz-sessions readers needs pins clean wheel deb image host-test test-packages packages check-packages needs-packages release
