# Every target works from a fresh clone: what it needs is installed, pinned, into .cache first.
PYTHON ?= python3
INVENTORY ?=
ifneq ($(origin INVENTORY),file)
ifeq ($(strip $(INVENTORY)),)
$(error INVENTORY= is empty: name an inventory, or leave INVENTORY out for the sandbox)
endif
endif
ARGS ?=
# Molecule's scenarios that `make test` runs; `make test-all` runs every one.
export SCENARIOS ?= default
PY := .cache/venv/bin/python
.DEFAULT_GOAL := help
.PHONY: help site plan verify diagnose benchmark usage report login destroy test test-fast test-all lint docs docs-check sanity unit gateway package monitoring pages molecule compat bench bench-gateway calibrate interference build lock clean venv venv-test
# One at a time: the steps share two cores and one cache. tools/run_tests.py knows what may run beside what.
.NOTPARALLEL:

help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

site: venv ## Turn the sandbox, or the hosts of INVENTORY=…, into proven inference hosts (ARGS=… goes to ansible-playbook)
	@$(PY) tools/run_playbook.py site "$(INVENTORY)" $(ARGS)

plan: venv ## Show what site would decide, and touch nothing
	@$(PY) tools/run_playbook.py plan "$(INVENTORY)" $(ARGS)

verify: venv ## Prove again what the hosts really do
	@$(PY) tools/run_playbook.py verify "$(INVENTORY)" $(ARGS)

diagnose: venv ## Find out what is wrong with the hosts, why, and what to do
	@$(PY) tools/run_playbook.py diagnose "$(INVENTORY)" $(ARGS)

benchmark: venv ## Measure what the services lose by each other and by CPU-bound neighbours
	@$(PY) tools/run_playbook.py benchmark "$(INVENTORY)" $(ARGS)

usage: venv ## Sum up what the services have used, as a table and as CSV (ARGS="-e usage_since=7d")
	@$(PY) tools/run_playbook.py usage "$(INVENTORY)" $(ARGS)

report: venv ## A page for each host: plan, proof, findings, the last hours, what changed
	@$(PY) tools/run_playbook.py report "$(INVENTORY)" $(ARGS)

login: venv ## A shell in the sandbox
	@$(PY) tests/sandbox/sandbox.py login

destroy: venv ## Remove the sandbox
	@$(PY) tests/sandbox/sandbox.py down

test: venv-test ## lint, docs, unit, package, sanity, molecule
	@$(PY) tools/run_tests.py lint docs-check unit package sanity molecule

test-fast: venv-test ## Everything that needs no virtual machine
	@$(PY) tools/run_tests.py lint docs-check unit gateway package monitoring sanity

test-all: venv-test ## Everything: also gateway, monitoring, pages, the other scenarios, and the other releases of ansible-core
	@SLOW_TESTS=1 SCENARIOS="$(notdir $(patsubst %/molecule.yml,%,$(wildcard molecule/*/molecule.yml)))" $(PY) tools/run_tests.py lint docs-check unit gateway package monitoring sanity pages compat molecule

lint: venv-test ## ansible-lint (production), yamllint, flake8
	@$(PY) tools/lint.py

docs: venv-test ## Write the tables of the documents from the argument specs and the compatibility tables
	@$(PY) tools/docs.py write

docs-check: venv-test ## Are the tables, the module documentation and the changelog fragments in order?
	@$(PY) tools/docs.py check

sanity: venv-test ## ansible-test sanity, without containers
	@$(PY) tools/sanity.py $(ARGS)

unit: venv-test ## Unit tests, with the coverage of plugins/
	@$(PY) tools/unit.py $(ARGS)

gateway: venv-test ## The gateway: real nginx in front of stand-ins for engines that die, hang, fill up and break off
	@$(PY) tools/gateway.py $(ARGS)

package: venv-test ## Build the archive, import it as Galaxy would, install it, use it under its full name
	@$(PY) tools/package.py check

monitoring: venv-test ## The alert rules, the dashboards and the delivery of alerts, with the real Prometheus and Alertmanager
	@$(PY) tools/monitoring.py $(ARGS)

pages: venv-test ## The pages that the collection writes, opened in headless Chromium
	@$(PY) tools/pages.py $(ARGS)

molecule: venv-test ## A new machine from nothing to proven, rebooted, and proven again
	@$(PY) tools/run_molecule.py $(or $(ARGS),$(SCENARIOS))

compat: venv-test ## Unit tests and syntax under the other supported releases of ansible-core
	@$(PY) tools/compat.py $(ARGS)

bench: venv-test ## Measure, and write docs/benchmarks.md
	@$(PY) tools/bench.py

bench-gateway: venv-test ## Measure what the gateway costs and what becomes of requests when engines fail, and write docs/gateway.md
	@$(PY) tools/gateway_bench.py $(ARGS)

calibrate: venv-test ## Compare the memory vLLM needs with what the plan reckons (ARGS="gpt2" chooses)
	@$(PY) tools/calibrate.py $(ARGS)

interference: venv-test ## Measure on this machine what CPU-bound neighbours cost vLLM, by layout (ARGS="--rounds 3")
	@$(PY) tools/interference.py $(ARGS)

build: venv ## The archive for ansible-galaxy collection install
	@$(PY) tools/package.py build

lock: venv-test ## For maintainers: pin all packages anew
	@$(PY) tools/lock.py

clean: ## Remove everything that was made here, the sandbox and its cache too
	@for machine in .cache/sandbox/vms/*/; do [ ! -d "$$machine" ] || $(PYTHON) tests/sandbox/sandbox.py down --name "$$(basename "$$machine")"; done
	rm -rf .cache diagnosis benchmark-report usage-report reports .pytest_cache .hypothesis .ansible erni_ki-inference-*.tar.gz

venv:
	@$(PYTHON) tools/bootstrap.py site

venv-test:
	@$(PYTHON) tools/bootstrap.py test
