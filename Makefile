# The verbs; CI calls the same ones. A fresh clone needs Python 3.11 or newer, make and git.
# TEST_WORKERS: processes that run tests (3). ARGS: more for pytest (make test ARGS="-k jwt"). PYTHON: the one for .venv.
.PHONY: help run test check dev bench bench-peers simulate-check lock upgrade docs test-corpus test-model test-clients test-deploy image clean
.DEFAULT_GOAL := help

TEST_WORKERS ?= 3
ARGS ?=
export PYTHON
unexport PYTHONDONTWRITEBYTECODE # images set it: each of the tests' many processes would compile everything again

help: ## what there is
	@sed -nE 's/^([a-z-]+):.*## (.*)/make \1\t\2/p' Makefile | expand -t 18

run: ## the gateway on 127.0.0.1:8080 (another: PORT=8090) with the embedded echo model
	@scripts/bootstrap.sh run
	@PORT="$(PORT)" ADMIN_PORT="$(ADMIN_PORT)" exec scripts/run.sh

test: dev ## all tests; what needs a server or client that cannot be had skips and says why
	@scripts/test_tools.sh
	.venv/bin/python -m pytest --numprocesses $(TEST_WORKERS) --dist worksteal $(ARGS)

test-corpus: dev ## every recorded stream byte by byte into every client dialect, and to every SDK (make test: some of them to some SDKs)
	SLUICE_TEST_CORPUS=1 .venv/bin/python -m pytest --numprocesses $(TEST_WORKERS) --dist worksteal tests/e2e/test_corpus.py tests/e2e/test_clients.py tests/sdks $(ARGS)

check: dev ## style, types, locks
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	scripts/lock.sh --check

dev: ## .venv with everything to work on it
	@scripts/bootstrap.sh dev

lock: dev ## renew the locks after a change of pyproject.toml
	scripts/lock.sh

upgrade: dev ## the newest versions into the locks
	scripts/lock.sh --upgrade

docs: dev ## the documentation as pages in .cache/site, links within it checked (SERVE=1: on 127.0.0.1:8000, built again as files change; LINKS=1: those that lead elsewhere, too)
	@SERVE="$(SERVE)" LINKS="$(LINKS)" scripts/docs.sh

test-model: dev ## a real small model (270 MB of downloads) behind the gateway
	@scripts/test_model.sh

test-clients: dev ## other people's clients (five gigabytes when installed) on a task behind the gateway; some: ARGS="codex aider"; docs/clients.md
	@scripts/test_clients.sh $(ARGS)

test-deploy: dev ## streams through nginx, HAProxy, Caddy, Traefik and Envoy (90 MB of downloads), with the files of deploy/; the faults of the runbook's table, with Prometheus, and every panel, rule and alert over a night of faults; the image; the systemd units; eight hosts with a network between them (root); the chart on a Kubernetes API server, and with a kubelet in pods that run (KUBEBUILDER_ASSETS)
	@scripts/test_tools.sh
	.venv/bin/python scripts/programs.py scripts/locks/proxies.lock .cache/bin traefik envoy
	SLUICE_TEST_DEPLOY=1 .venv/bin/python -m pytest --numprocesses $(TEST_WORKERS) --dist worksteal tests/deploy/test_ingresses.py tests/deploy/test_bad_night.py tests/deploy/test_panels.py tests/e2e/test_nginx.py $(ARGS) || test $$? = 5 # 5: ARGS chose none of these
	SLUICE_TEST_DEPLOY=1 .venv/bin/python -m pytest tests/deploy/test_systemd_live.py tests/deploy/test_image.py tests/deploy/test_hosts.py tests/deploy/test_cluster.py tests/deploy/test_pods.py $(ARGS) || test $$? = 5 # one image, eight hosts, one API server: in one process

image: dev ## the image by buildah, with its bill of materials and provenance, in dist/image (BASE=…@sha256:…: on that base); docs/image.md
	@BASE="$(BASE)" IMAGE="$(IMAGE)" OUT="$(OUT)" scripts/image.sh

bench: dev ## what a request and a token cost, beside the installed peers (FULL=1: the figures to quote; BEFORE=COMMIT: in turn with that); bench/REPORT.md
	@FULL="$(FULL)" BEFORE="$(BEFORE)" ARGS="$(ARGS)" bench/bench.sh

simulate-check: dev ## the simulation held against a running gateway, in seven scenarios of half a minute; some: ARGS="outage queue"
	.venv/bin/python scripts/simulate_check.py $(ARGS)

bench-peers: ## the peers that bench compares with, into .cache/peers
	@bench/setup-peers.sh .cache/peers

clean: ## everything that was made, downloads included
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
