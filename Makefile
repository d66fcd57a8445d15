# What can be done with this project. `make` alone prints the list; each target first sets up what it needs.
# Needed beforehand: Python 3.11 or newer and make. Everything is installed into $(VENV), from the lock files, by hash.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --no-input --quiet
LOCKED := --require-hashes --only-binary :all:
LOCK   := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
          --no-strip-extras $(UPGRADE)
EXTRAS_LOCKED := --extra smn --extra oidc --extra otel

.DEFAULT_GOAL := help
.PHONY: help demo demo-chat setup test check format readme settings lock clean \
        bench prove breakages mutants interop flow load observability \
        wheel functiongraph-zip image-test sbom audit release-check

help:            ## print this list
	@sed -n -e 's/^#@ \(.*\)/\n\1/p' -e 's/^\([a-z-]*\): .*## /  make \1\t/p' Makefile | expand -t 28

#@ See it work
demo: $(VENV)/run.stamp    ## a stop on the simulated cloud: no account, no real server
	@$(BIN)/bms-autostop demo

demo-chat: $(VENV)/run.stamp  ## from a chat command and an alarm to the message in the chat
	@$(BIN)/bms-autostop demo-chat

#@ While you change it
setup: $(VENV)/dev.stamp   ## install what tests and checks need into .venv, and nothing else

test: $(VENV)/dev.stamp    ## all tests, with coverage; a single one: .venv/bin/pytest tests/...
	@$(BIN)/python -m pytest -n 4 --dist worksteal --cov=handler --cov-branch --cov-report=term:skip-covered --no-cov-on-fail
	@$(BIN)/coverage report --include='handler/stop/*' --show-missing --skip-covered --fail-under=100 > .coverage-stop || { cat .coverage-stop; exit 1; }

check: $(VENV)/dev.stamp   ## format, lint, types, import rules, manifests, Dockerfile, workflows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.deploy.validate
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose/compose.yaml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml

format: $(VENV)/dev.stamp  ## fix what `check` can fix by itself
	$(BIN)/ruff format -q . ; $(BIN)/ruff check --fix . ; found=$$? ; $(BIN)/ruff format . && exit $$found

readme: $(VENV)/dev.stamp  ## write the tables of events/README.md and deploy/settings.md from the code
	@$(BIN)/python -m tests.readme

settings: readme           ## the same

lock: $(VENV)/tools.stamp  ## write the lock files; UPGRADE=--upgrade for the newest versions
	$(LOCK) $(EXTRAS_LOCKED) pyproject.toml -o requirements.lock
	$(LOCK) $(EXTRAS_LOCKED) --group dev -c requirements.lock pyproject.toml -o requirements-dev.lock
	$(LOCK) --group build -c requirements-dev.lock -o requirements-build.lock
	$(LOCK) --group tools -c requirements-dev.lock -o requirements-tools.lock

clean:           ## delete what was set up and built
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage mutants

#@ Longer checks, each by itself
flow: $(VENV)/dev.stamp    ## replay nights with faults on Knative's manifests, for each kind of broker
	@$(BIN)/python -m tests.deploy

load: $(VENV)/dev.stamp    ## a thousand events in a minute, memory, and a SIGTERM in between
	@$(BIN)/python -m tests.deploy.load

prove: $(VENV)/dev.stamp   ## random events, faults, kills and repeats, for minutes
	@$(BIN)/python -m tests.harness.prove --deliveries 10000
	@$(BIN)/python -m tests.harness.prove.breakages

breakages: $(VENV)/dev.stamp  ## remove each guard once and see that `prove` finds it
	@$(BIN)/python -m tests.harness.prove.breakages

mutants: $(VENV)/tools.stamp  ## change the decision code line by line and see that a test notices
	@$(BIN)/python -m tests.harness.mutants

bench: $(VENV)/dev.stamp   ## cold start, memory, many servers at once
	@$(BIN)/python -m tests.harness.bench

interop: $(VENV)/dev.stamp ## exchange events with the JavaScript SDK and a real Alertmanager
	@$(BIN)/python -m tests.harness.interop

observability: $(VENV)/dev.stamp   ## check alerts and dashboard with promtool (Debian: prometheus)
	@$(BIN)/python -m tests.observability

#@ Packages
wheel: $(VENV)/dev.stamp   ## dist/*.whl
	$(PIP) wheel --no-index --no-deps --no-build-isolation --wheel-dir dist .

functiongraph-zip: $(VENV)/dev.stamp  ## dist/functiongraph.zip; for its bytecode Python 3.12; EXTRAS="--with otel" for tracing
	@$(BIN)/python -m deploy.functiongraph.package $(EXTRAS)

image-test: $(VENV)/dev.stamp functiongraph-zip  ## build the image without Docker and start it and the zip; needs root, buildah
	@$(BIN)/python -m tests.harness.image --zip dist/functiongraph.zip $(BASE)

release-check: $(VENV)/tools.stamp  ## build wheel and zip twice, in other folders and at other times, and compare
	@$(BIN)/python -m tests.deploy.release

sbom: $(VENV)/tools.stamp  ## dist/sbom.cdx.json: parts, licences and dependencies (CycloneDX), validated
	@$(BIN)/python -m tests.deploy.sbom dist/sbom.cdx.json

audit: $(VENV)/tools.stamp ## look up every locked version in the Python advisory database; needs the network
	@$(BIN)/python -m tests.deploy.audit

# --- set-up

# $(call installed,what for,how long,locks): install lock files, and say so first.
installed = @echo "Installing $(1) into $(VENV) ($$(cat $(3) | grep -c ==) packages, about $(2), needs the network)" \
    && $(PIP) install $(LOCKED) $(addprefix -r ,$(3))

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=...")'
	@echo "Creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

# The build requirements come along, so that nothing is fetched without a hash when the project itself is installed.
$(VENV)/run.stamp: $(BIN)/python requirements.lock requirements-build.lock pyproject.toml
	$(call installed,what the function needs,20 s,requirements.lock requirements-build.lock)
	@$(PIP) install --no-index --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp requirements-dev.lock
	$(call installed,what tests and checks need,30 s,requirements-dev.lock)
	@touch $@

$(VENV)/tools.stamp: $(VENV)/dev.stamp requirements-tools.lock
	$(call installed,what audits and releases need,20 s,requirements-tools.lock)
	@touch $@
