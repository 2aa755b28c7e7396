#!/usr/bin/env bash
# What single tests use and .venv does not hold: servers of the system (nginx, HAProxy, Caddy, redis-server, PostgreSQL,
# PgBouncer, promtool), Valkey, a Kafka broker (Tansu), a collector (rotel), a browser, helm, what
# builds the documentation, and other people's clients and mock providers. None of it is needed: what cannot be had in time is left out, its tests skip and say why.
#
# Servers come from Debian and only for root (SLUICE_APT=no: never); the rest goes to .cache. Logs: .cache/log.
set -uo pipefail
cd "$(dirname "$0")/.."
mkdir -p .cache/log .cache/bin
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 DEBIAN_FRONTEND=noninteractive
clients=../shared/clients

step() { # NAME SECONDS FUNCTION [DIRECTORY]: quietly, within a time, and never fatal; a directory half made is taken away
    local name=$1 seconds=$2 directory=${4:-}
    export -f "$3"
    timeout --kill-after=5 "$seconds" bash -euo pipefail -c "$3" >".cache/log/$name.log" 2>&1 </dev/null && return
    [[ -z $directory ]] || rm -rf "$directory"
    echo "test tools: no $name (see .cache/log/$name.log); its tests will skip" >&2
}

servers() {
    local packages=()
    command -v nginx || packages+=(nginx-light)
    command -v haproxy || packages+=(haproxy)
    command -v caddy || packages+=(caddy)
    command -v redis-server || packages+=(redis-server)
    command -v promtool || packages+=(prometheus)
    command -v chromium || packages+=(chromium)
    command -v ip || packages+=(iproute2)
    docker compose version || command -v docker-compose || packages+=(docker-compose)
    command -v pgbouncer || packages+=(pgbouncer)
    # tests/deploy/test_pods.py, which needs more that only its user has
    [[ -z ${KUBEBUILDER_ASSETS:-} ]] || command -v containerd || packages+=(containerd runc containernetworking-plugins)
    compgen -G '/usr/lib/postgresql/*/bin/postgres' || packages+=(postgresql)
    [[ ${#packages[@]} -gt 0 ]] || return 0
    # their packages start them as services, on ports that may be somebody's: not for the sake of a test
    local policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' >$policy
        chmod +x $policy
        trap "rm -f $policy" EXIT
    fi
    apt-get update -qq
    for package in "${packages[@]}"; do
        apt-get install -y -qq --no-install-recommends "$package"
    done
}

collector() { .venv/bin/python scripts/programs.py scripts/locks/collector.lock .cache/bin rotel-agent; }

kafka() { .venv/bin/python scripts/programs.py scripts/locks/kafka.lock .cache/bin tansu; }

valkey() { .venv/bin/python scripts/programs.py scripts/locks/valkey.lock .cache/bin valkey-server; }

helm() { .venv/bin/python scripts/helm.py .cache/bin/helm; }

environment() { # NAME: the environment .cache/NAME-venv of what scripts/locks/NAME.lock lists
    local lock=scripts/locks/$1.lock venv=.cache/$1-venv
    cmp --silent "$lock" "$venv/installed.lock" && return
    .venv/bin/uv venv --quiet --clear --no-config --python .venv/bin/python "$venv"
    .venv/bin/python -m pip -qq --python "$venv/bin/python" install --no-compile --require-hashes --only-binary :all: -r "$lock"
    cp "$lock" "$venv/installed.lock"
}
export -f environment

python_clients() { environment clients; }

# an endpoint picker of the official protos, for tests/e2e/test_picker.py
picker() { environment epp; }

# providers that others mocked, for tests/mocks
python_mocks() { environment mocks; }

node_mocks() {
    mkdir -p .cache/mocks
    cmp --silent tests/mocks/package-lock.json .cache/mocks/installed.json && return
    cp tests/mocks/package.json tests/mocks/package-lock.json .cache/mocks/
    (cd .cache/mocks && npm install --ignore-scripts --no-save --no-audit --no-fund --loglevel error)
    cp tests/mocks/package-lock.json .cache/mocks/installed.json
}

node_clients() {
    mkdir -p .cache/clients
    cmp --silent "$clients/package.json" .cache/clients/installed.json && return
    cp "$clients/package.json" .cache/clients/package.json
    chmod u+w .cache/clients/package.json
    (cd .cache/clients && npm install --ignore-scripts --no-audit --no-fund --no-package-lock --loglevel error)
    cp "$clients/package.json" .cache/clients/installed.json
}

docs_tools() { FETCH_ONLY=1 scripts/docs.sh; }

# an OpenID provider and rules of accessibility, for the tests of the pages
ui_node() {
    mkdir -p .cache/ui-node
    cp tests/ui/node/provider.mjs .cache/ui-node/
    cmp --silent tests/ui/node/package-lock.json .cache/ui-node/installed.json && return
    cp tests/ui/node/package.json tests/ui/node/package-lock.json .cache/ui-node/
    (cd .cache/ui-node && npm install --ignore-scripts --no-save --no-audit --no-fund --loglevel error)
    cp tests/ui/node/package-lock.json .cache/ui-node/installed.json
}

export clients
if command -v npm >/dev/null; then step ui-node 120 ui_node .cache/ui-node & fi
if [[ $(id -u) == 0 && ${SLUICE_APT:-yes} != no ]] && command -v apt-get >/dev/null; then step servers 240 servers & fi
step helm 120 helm &
step valkey 120 valkey &
step kafka 120 kafka &
step collector 120 collector &
step docs-tools 120 docs_tools .cache/docs-venv &
step picker 120 picker .cache/epp-venv &
step python-mocks 240 python_mocks .cache/mocks-venv &
if command -v npm >/dev/null; then step node-mocks 120 node_mocks .cache/mocks & fi
if [[ -d $clients ]]; then
    step python-clients 240 python_clients .cache/clients-venv &
    if command -v npm >/dev/null; then step node-clients 120 node_clients .cache/clients & fi
fi
wait
