# Each target is a line that a person could type. `make demo` needs Python 3.11+; the rest Node 20+ too.
.PHONY: demo serve test lint types unit synth deploy bench clean
SHELL := /bin/bash
UV := .venv/bin/uv
PY := .venv/bin/python

demo: .venv/main  ## draw a small collection, cluster it, print where the gallery is
	test -d demo/photos || $(PY) -m local.demo demo/photos
	.venv/bin/imageclust run demo/photos --out demo/clusters --home demo/state

serve: .venv/main  ## answer the API on this machine and watch .imageclust/uploads/
	.venv/bin/imageclust serve

test: lint types unit  ## everything that must hold before a commit lands

lint: .venv/all
	.venv/bin/ruff format --check . && .venv/bin/ruff check . && .venv/bin/lint-imports && $(UV) lock --check

types: .venv/all
	.venv/bin/mypy

unit: .venv/all node_modules/.done
	scripts/ensure-chromium
	.venv/bin/pytest -n 2 --dist loadgroup

synth: .venv/all node_modules/.done  ## the CloudFormation template, without an account
	npx cdk synth --quiet

deploy: .venv/all node_modules/.done  ## to the account of your AWS credentials
	npx cdk deploy

bench: .venv/all  ## ratios against named peers; minutes
	$(PY) -m benchmarks

clean:
	rm -rf .venv node_modules build cdk.out demo .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/bin/uv:
	python3 -m venv .venv && .venv/bin/python -m pip install --quiet uv==0.13.9

.venv/main: .venv/bin/uv pyproject.toml uv.lock
	$(UV) sync --quiet --frozen --inexact && touch $@

.venv/all: .venv/bin/uv pyproject.toml uv.lock
	$(UV) sync --quiet --frozen --inexact --all-groups --all-extras && touch .venv/main $@

node_modules/.done: package.json package-lock.json
	npm ci --no-audit --no-fund && touch $@
