# The commands of contributors. `make` without a target lists them.
.DEFAULT_GOAL := help
.SUFFIXES:

PYTHON3 ?= python3
PY := .venv/bin/python
SERVERS ?= kafka hbase airflow
STORE ?= sqlite
PYTEST_ARGS ?=
SEEDS ?= 2000
FROM ?= 1
# One seed alone is a history that is run again.
EDITED ?= $(if $(filter 1,$(SEEDS)),0,120)
JOBS ?= $(shell nproc)

.PHONY: help venv jars up down status clean demo demo-backfill bench unit laws integration e2e test check wheel
.PHONY: first-day on-spark on-airflow in-memory simulate mutants docs reference screenshots versions-test sinks committer
.PHONY: compose-base compose-password compose-up compose-test

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z0-9.-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo '  SERVERS="kafka hbase airflow"   which servers `make up` starts (all by default)'
	@echo '  SEEDS=2000 FROM=1               how many histories `make simulate` draws, and the first seed'
	@echo '  EDITED=120                      how many histories of edited pipelines it runs beside them'
	@echo '  JOBS=<number of cores>          how many processes `make simulate` uses'
	@echo '  STORE=sqlite|hbase              the offset store of `make up` and `make demo`'

venv:  ## create or update .venv
	@$(PYTHON3) -m stack venv

jars:  ## fetch Spark's Kafka connector and PostgreSQL, and build jobs/dstream with its own Spark
	@$(PYTHON3) -m stack jars spark postgres dstream

up:  ## start SERVERS, and wait until they respond
	@$(PYTHON3) -m stack up $(SERVERS) --store $(STORE)

down:  ## stop the demo's job and every server; the data stays
	@if [ -x $(PY) ]; then $(PY) -m demo --end; fi
	@$(PYTHON3) -m stack down

status:  ## show which servers are up, with their addresses
	@$(PYTHON3) -m stack status

clean: down  ## stop every server and remove .stack and .venv
	rm -rf .stack .venv

demo: venv  ## run the demo on real servers: a maintenance, a repartition and a rewind, with STORE
	$(PY) -m demo --store $(STORE)

demo-backfill: venv  ## run the demo of a backfill: a fixed program replays the month that a bug has processed
	$(PY) -m demo.backfill

bench: venv jars  ## measure a replay against a hand-written spark.read, and a plan of 10,000 partitions
	@$(PYTHON3) -m stack up kafka
	$(PY) -m bench

# `make check` runs test_language.py. Each test module is compiled once, whatever the caller's environment says: a
# process that compiles all of them needs some seconds more.
unit laws: export PYTHONDONTWRITEBYTECODE :=
UNIT := tests/unit --ignore tests/unit/test_language.py -n auto --dist worksteal --durations 10

unit: venv  ## run the tests that need Python only, except those of laws
	$(PY) -m pytest $(UNIT) -m 'not (hypothesis or sweep or in_airflow)' $(PYTEST_ARGS)

laws: venv  ## run laws over random input, operations killed at each of their writes, scripts of the simulation, and examples
	$(PY) -m pytest $(UNIT) tests/simulation -m 'hypothesis or sweep or simulation or in_airflow' $(PYTEST_ARGS)

simulate: venv  ## check the guarantees in SEEDS random histories of operations, drivers and faults, FROM a seed on
	$(PY) -m tests.simulation --seeds $(SEEDS) --edited $(EDITED) --from $(FROM) --jobs $(JOBS)

mutants: venv  ## plant mistakes in the package, and check that a unit test or the simulation finds each of them
	$(PY) -m tests.mutants

# Tests that share servers run in file order, so that a run can be repeated. Unit tests run in random order.
integration: venv jars  ## run the tests against the Kafka and HBase that are up
	$(PY) -m pytest tests/integration -p no:randomly --durations 10 $(PYTEST_ARGS)

STORIES := tests/e2e tests/versions/test_spark.py
ON_AIRFLOW := tests/e2e/test_airflow.py tests/e2e/test_backfill.py

e2e: venv jars  ## run the end-to-end tests, with Spark and Airflow
	$(PY) -m pytest $(STORIES) -m 'not installation' -p no:randomly --durations 10 $(PYTEST_ARGS)

first-day: venv  ## copy the commands of the guides into an empty environment, up to a proven maintenance; downloads Spark
	@$(PYTHON3) -m stack up kafka
	$(PY) -m pytest tests/e2e/test_first_day.py -p no:randomly $(PYTEST_ARGS)

versions-test: venv  ## run the matrix of versions, or the cells with the words of ONLY; downloads each Spark
	@$(PYTHON3) -m stack up kafka
	$(PY) -m tests.versions $(ONLY); code=$$?; $(PY) -m docs.generate; exit $$code

sinks: venv  ## test the programs of jobs/sinks, also on Spark 4.1.1; downloads table formats; not part of make test
	@$(PYTHON3) -m stack jars spark postgres tables tables-4.1
	@$(PYTHON3) -m stack spark 4.1
	@$(PYTHON3) -m stack up kafka
	$(PY) -m pytest tests/versions/test_sinks.py -p no:randomly -rA $(PYTEST_ARGS)

test:  ## run unit and check, then integration, e2e, laws, simulate and mutants beside each other; starts Kafka and HBase
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory check
	@$(PYTHON3) -m stack up kafka hbase
	@# A test on servers often waits for a driver: the others use the cores meanwhile.
	@printf '%s\n' on-spark on-airflow in-memory | xargs -P 3 -n 1 $(MAKE) --no-print-directory

on-spark:
	@$(MAKE) --no-print-directory e2e STORIES='$(STORIES) $(addprefix --ignore ,$(ON_AIRFLOW))'

on-airflow:
	@$(MAKE) --no-print-directory integration
	@$(MAKE) --no-print-directory e2e STORIES='$(ON_AIRFLOW)'

in-memory:
	@nice $(MAKE) --no-print-directory laws
	@nice $(MAKE) --no-print-directory simulate
	@nice $(MAKE) --no-print-directory mutants

check: venv  ## check format, lint, spelling, retired words, docstrings and types, and build the docs site
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/codespell
	$(PY) -m pytest tests/unit/test_language.py tests/unit/test_docstrings.py -q -p no:cacheprovider
	.venv/bin/mypy
	@$(MAKE) --no-print-directory docs

docs: venv  ## build the docs site into site; fails on a broken link or a page without a place in the navigation
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict

reference: venv  ## write the generated pages: keys of pipelines.yaml, errors, options of the commands
	$(PY) -m docs.generate

screenshots: venv  ## take the screenshots of the docs from the demo that has run, with Debian's chromium
	$(PY) -m demo.screenshots

committer: venv  ## compile the package's output committer for Spark into its jar, which is committed
	@$(PYTHON3) -m stack committer

wheel: venv  ## build the wheel and the source archive into dist
	$(PY) -m build

compose-base:  ## create the image debian:bookworm-slim by debootstrap, as root, if it cannot be pulled
	@$(PYTHON3) -m containers base

compose-up:  ## check that the ports of .env are free, and run docker compose up -d
	@$(PYTHON3) -m containers up

compose-password:  ## write .env for docker compose, and print the admin's password once
	@$(PYTHON3) -m containers password

compose-test: venv  ## test the containers: build, start, kill each once, check, remove
	@$(PY) -m containers test
