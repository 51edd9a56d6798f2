# Everything that a contributor runs. `make` alone shows what there is.
.DEFAULT_GOAL := help
.SUFFIXES:

PYTHON3 ?= python3
PY := .venv/bin/python
SERVERS ?= kafka hbase airflow
STORE ?= sqlite
PYTEST_ARGS ?=
SEEDS ?= 2000
FROM ?= 1
JOBS ?= $(shell nproc)

.PHONY: help venv jars up down status clean demo demo-backfill bench unit integration e2e test check wheel
.PHONY: simulate mutants docs reference spark-4.1
.PHONY: compose-base compose-password compose-up compose-test

help:  ## show this help
	@awk -F ':.*## ' '/^[a-z0-9.-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo '  SERVERS="kafka hbase airflow"   which servers `make up` starts (all by default)'
	@echo '  SEEDS=2000 FROM=1               how many histories `make simulate` draws, and from which seed on'
	@echo '  JOBS=<number of cores>          how many processes `make simulate` uses'
	@echo '  STORE=sqlite|hbase              what offsets_default is for `make up` and `make demo`'

venv:  ## make .venv, or bring it up to date
	@$(PYTHON3) -m stack venv

jars:  ## fetch Spark's Kafka connector and PostgreSQL, and build jobs/dstream with its own Spark
	@$(PYTHON3) -m stack jars spark postgres dstream

up:  ## start SERVERS and wait until they answer
	@$(PYTHON3) -m stack up $(SERVERS) --store $(STORE)

down:  ## end the demo's job and stop every server; data stays
	@if [ -x $(PY) ]; then $(PY) -m demo --end; fi
	@$(PYTHON3) -m stack down

status:  ## show which servers are up, and where
	@$(PYTHON3) -m stack status

clean: down  ## stop every server and remove .stack and .venv
	rm -rf .stack .venv

demo: venv  ## show the whole thing on real servers, with STORE
	$(PY) -m demo --store $(STORE)

demo-backfill: venv  ## show a month that a program with a bug has processed being replayed by the fixed one
	$(PY) -m demo.backfill

bench: venv jars  ## measure replays beside a hand-written spark.read, and the planning of 10,000 partitions
	@$(PYTHON3) -m stack up kafka
	$(PY) -m bench

unit: venv  ## tests that need nothing but Python
	$(PY) -m pytest tests/unit tests/simulation -n auto --dist worksteal --durations 10 $(PYTEST_ARGS)

simulate: venv  ## draw SEEDS histories FROM a seed: actors, faults and the world by chance, and check the claim
	$(PY) -m tests.simulation --seeds $(SEEDS) --from $(FROM) --jobs $(JOBS)

mutants: venv  ## plant mistakes in the package, each to be found by a unit test or by the simulation
	$(PY) -m tests.mutants

# Tests that share servers run in the order of their files, so that a run can be repeated; unit tests run in any order.
integration: venv jars  ## tests against the Kafka and HBase that are up
	$(PY) -m pytest tests/integration -p no:randomly --durations 10 $(PYTEST_ARGS)

e2e: venv jars  ## tests of whole stories, with Spark and Airflow
	$(PY) -m pytest tests/e2e -p no:randomly --durations 10 $(PYTEST_ARGS)

spark-4.1: venv  ## test on the real Spark 4.1.1, fetched for it, the bug that ends a query; no part of make test
	@$(PYTHON3) -m stack jars spark-4.1
	@$(PYTHON3) -m stack up kafka
	$(PY) -m pytest tests/versions/test_spark_4_1.py -p no:randomly $(PYTEST_ARGS)

test:  ## unit, check, simulate, mutants, integration, e2e, with Kafka and HBase brought up for them
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory check
	@$(MAKE) --no-print-directory simulate
	@$(MAKE) --no-print-directory mutants
	@$(PYTHON3) -m stack up kafka hbase
	@$(MAKE) --no-print-directory integration
	@$(MAKE) --no-print-directory e2e

check: venv  ## format, lint, spelling, retired words and types, and the docs site
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/codespell
	$(PY) -m pytest tests/unit/test_language.py -q -p no:cacheprovider
	.venv/bin/mypy
	@$(MAKE) --no-print-directory docs

docs: venv  ## build the docs site into site; fails on a broken link or a page that is not in the nav
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

reference: venv  ## write the generated pages of the docs: keys of pipelines.yaml, errors, options of the commands
	$(PY) docs/generate.py

wheel: venv  ## build the wheel and the source archive into dist
	$(PY) -m build

compose-base:  ## make debian:bookworm-slim by debootstrap, as root, where it cannot be pulled
	@$(PYTHON3) -m containers base

compose-up:  ## look whether the ports of .env are free, and run docker compose up -d
	@$(PYTHON3) -m containers up

compose-password:  ## write .env for docker compose, and print the admin's password once
	@$(PYTHON3) -m containers password

compose-test: venv  ## bring the containers up from nothing, kill each once, check, remove all of it
	@$(PY) -m containers test
