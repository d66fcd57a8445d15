# One door for habits. Each target sets up what it needs; nothing has to be installed by hand but Python and make.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help demo demo-chat test check format bench prove breakages mutants interop flow load observability readme settings lock clean
.PHONY: functiongraph-zip image-test wheel sbom audit

help:            ## show this list
	@sed -n 's/^\([a-z-]*\): .*## /  make \1\t/p' Makefile | expand -t 28

demo: $(VENV)/run.stamp    ## see it work on the embedded simulator: no account, no cloud
	@$(BIN)/bms-autostop demo

demo-chat: $(VENV)/run.stamp  ## the same from a chat's command, and an alarm, to what the chat shows
	@$(BIN)/bms-autostop demo-chat

test: $(VENV)/dev.stamp    ## all tests
	@$(BIN)/python -m pytest -n 3

check: $(VENV)/dev.stamp   ## format, lint, types, import rules, manifests, Dockerfile, workflows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.deploy.validate
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose/compose.yaml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

format: $(VENV)/dev.stamp  ## mend what `check` can mend by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/dev.stamp   ## cold start, memory, fan-out: ratios in one run
	@$(BIN)/python -m tests.harness.bench

prove: $(VENV)/dev.stamp   ## attack it for minutes: people, faults, kills, repeats
	@$(BIN)/python -m tests.harness.prove --deliveries 10000
	@$(BIN)/python -m tests.harness.prove.breakages

breakages: $(VENV)/dev.stamp  ## break each guard once and see that `prove` finds it
	@$(BIN)/python -m tests.harness.prove.breakages

mutants: $(VENV)/tools.stamp  ## change the heart line by line and see that a test notices
	@$(BIN)/python -m tests.harness.mutants

observability: $(VENV)/dev.stamp   ## have promtool check alerts and dashboard (Debian: prometheus)
	@$(BIN)/python -m tests.observability

interop: $(VENV)/dev.stamp ## talk with programs not written here: the JavaScript SDK, a real Alertmanager
	@$(BIN)/python -m tests.harness.interop

flow: $(VENV)/dev.stamp    ## replay many nights of trouble on Knative's manifests
	@$(BIN)/python -m tests.deploy

load: $(VENV)/dev.stamp    ## a thousand events in a minute, memory, and a SIGTERM in the middle
	@$(BIN)/python -m tests.deploy.load

readme: $(VENV)/dev.stamp  ## write the README's tables and deploy/settings.md anew from the code
	@$(BIN)/python -m tests.readme

settings: readme           ## the same

lock: $(VENV)/dev.stamp    ## pin the dependencies: versions and hashes, no URLs; UPGRADE=--upgrade for the newest
	$(PIP) install uv
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-strip-extras $(UPGRADE) \
	    --extra smn --extra oidc --extra otel pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-strip-extras $(UPGRADE) \
	    --extra smn --extra oidc --extra otel --group dev pyproject.toml -o requirements-dev.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-strip-extras $(UPGRADE) \
	    --group build -c requirements-dev.lock -o requirements-build.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --no-strip-extras $(UPGRADE) \
	    --group tools -c requirements-dev.lock -o requirements-tools.lock

functiongraph-zip: $(VENV)/dev.stamp  ## dist/functiongraph.zip for the Open Telekom Cloud; EXTRAS="--with otel" for tracing
	@$(BIN)/python -m deploy.functiongraph.package $(EXTRAS)

image-test: $(VENV)/dev.stamp functiongraph-zip  ## build the image and start it and the zip, without Docker; needs root, buildah, debootstrap
	@$(BIN)/python -m tests.harness.image --zip dist/functiongraph.zip $(BASE)

wheel: $(VENV)/dev.stamp   ## dist/*.whl, built with what requirements-build.lock pins
	$(PIP) install --require-hashes -r requirements-build.lock
	$(PIP) wheel --no-deps --no-build-isolation --wheel-dir dist .

sbom: $(VENV)/tools.stamp  ## dist/sbom.cdx.json: the parts of image and zip (CycloneDX), validated
	@mkdir -p dist
	$(BIN)/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --output-reproducible --validate \
	    --output-format JSON --output-file dist/sbom.cdx.json

audit: $(VENV)/tools.stamp ## ask the database of Python's advisories about every locked version; needs the network
	$(BIN)/pip-audit --strict --disable-pip --require-hashes -r requirements.lock -r requirements-dev.lock -r requirements-build.lock

clean:           ## drop what was set up
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache .coverage mutants

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: $(BIN)/python requirements.lock pyproject.toml
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps -e .
	@touch $@

$(VENV)/dev.stamp: $(VENV)/run.stamp requirements-dev.lock
	$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

$(VENV)/tools.stamp: $(VENV)/dev.stamp requirements-tools.lock
	$(PIP) install --require-hashes -r requirements-tools.lock
	@touch $@
