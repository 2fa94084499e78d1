# One-word commands. `make run` and `make test` do all the set-up a fresh machine needs: Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TEST_STAMP := $(VENV)/.installed-test
LINKS := broker/actors broker/plugins

.PHONY: run test check bench chaos fuzz docs dev npm clean lock debian promtool

# In a terminal the broker gets a process group of its own: Ctrl-C then drains it, and make sees it exit with 0.
run: $(STAMP)
	@if [ -t 0 ]; then set -m; $(BIN)/broker --config config.yaml; else exec $(BIN)/broker --config config.yaml; fi

# One process more than there are cores: tests wait as much as they work.
test: $(TEST_STAMP) debian promtool
	$(BIN)/python -m pytest -m "not chaos" --numprocesses $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --dist loadfile --no-loadscope-reorder

check: $(TEST_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_imports.py tests/test_docs.py

bench: $(TEST_STAMP)
	$(BIN)/python -m bench

chaos: $(TEST_STAMP) debian
	$(BIN)/python -m pytest -m chaos

# A minute for each parser of what strangers send; what is found stays in its corpus, which the tests replay.
fuzz: $(TEST_STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[fuzz]"
	for parser in frames config tokens; do $(BIN)/python -m fuzz.$$parser --seconds 60 || exit 1; done

docs: $(TEST_STAMP)
	$(BIN)/python -m docs.reference

dev: $(TEST_STAMP)

# The JavaScript client as a package for npm, in dist/; the file in it is the one that the broker serves.
npm:
	mkdir -p dist
	cd npm && npm install --no-audit --no-fund --no-package-lock --ignore-scripts --silent && npm pack --pack-destination ../dist

# The versions that were tested, for everybody; `make lock` moves them.
lock:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --upgrade --upgrade-strategy eager -e ".[test,check]"
	$(BIN)/python -m pip freeze --exclude-editable --exclude pip --exclude setuptools --exclude wheel > constraints.txt

clean:
	rm -rf $(VENV) $(LINKS) .wstest27 build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "actor-broker needs Python 3.11 or newer; set PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)

$(STAMP): setup.cfg constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(TEST_STAMP): setup.cfg constraints.txt | $(VENV)/bin/python $(LINKS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test,check]"
	@touch $@ $(STAMP)

# So that type checkers see one package in the checkout as they do in the wheel (see CONTRIBUTING.md).
broker/actors broker/plugins:
	ln -s ../$(notdir $@) $@

# For the tests in a browser, with foreign clients and under a power cut; without root they say so and are skipped.
debian:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then set --; \
	  command -v chromium >/dev/null || set -- "$$@" chromium; \
	  command -v curl >/dev/null || set -- "$$@" curl; \
	  command -v node >/dev/null || set -- "$$@" nodejs; \
	  command -v npm >/dev/null || set -- "$$@" npm; \
	  command -v fusermount3 >/dev/null || set -- "$$@" fuse3; \
	  ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || set -- "$$@" faketime; \
	  ldconfig -p | grep -q 'libfuse\.so\.2' || set -- "$$@" libfuse2; \
	  [ $$# = 0 ] || { echo "installing $$*"; apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -y -qq --no-install-recommends "$$@" >/dev/null; } \
	  || echo "Some Debian packages could not be installed; the tests that need them are skipped, visibly."; fi

# promtool alone, out of Debian's package, whose installation would set up a server.
promtool: $(TEST_STAMP)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v promtool >/dev/null && [ ! -x $(BIN)/promtool ]; then \
	  echo "fetching promtool"; fetched=$$(mktemp -d); chmod 755 "$$fetched"; \
	  (cd "$$fetched" && { apt-get download -qq prometheus 2>/dev/null || { apt-get update -qq && apt-get download -qq prometheus; }; } && \
	    dpkg-deb --fsys-tarfile prometheus_*.deb | tar -xO ./usr/bin/promtool >promtool) && \
	  install -m 755 "$$fetched/promtool" $(BIN)/promtool \
	  || echo "promtool could not be had; the tests that need it are skipped, visibly."; rm -rf "$$fetched"; fi
