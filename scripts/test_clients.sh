#!/usr/bin/env bash
# `make test-clients`: other people's clients, at the versions that are locked, work on a task behind the gateway, whose provider
# is a script (tests/clients). Needs node and npm; about five gigabytes when installed, once, into .cache/agents. What cannot be installed is
# skipped, and said so. Arguments are clients' names, or parts of them; without any, all run. Writes the table of docs/clients.md.
set -euo pipefail
cd "$(dirname "$0")/.."

agents=.cache/agents
log=$PWD/.cache/log
mkdir -p "$agents" "$log"

npm_clients() {
    local wanted=tests/clients/package-lock.json
    cmp --silent "$wanted" "$agents/installed.json" && return
    cp tests/clients/package.json "$wanted" "$agents/"
    # not `npm ci`: it refuses a lock without packages for other systems, which not every registry has
    (cd "$agents" && npm install --ignore-scripts --no-save --no-audit --no-fund --loglevel error) &&
        cp "$wanted" "$agents/installed.json"
}

python_clients() { # NAME of the lock and of the environment, PACKAGES that have no wheel
    local lock=scripts/locks/$1.lock venv=$agents/$2
    local -a built=(--only-binary :all:)
    for name in "${@:3}"; do built+=(--no-binary "$name" --build-constraints "$lock"); done
    cmp --silent "$lock" "$venv/installed.lock" && return
    .venv/bin/uv venv --quiet --clear --no-config --python .venv/bin/python "$venv" &&
        .venv/bin/uv pip install --quiet --python "$venv/bin/python" --compile-bytecode --require-hashes "${built[@]}" --no-deps -r "$lock" &&
        cp "$lock" "$venv/installed.lock"
}

step() { # LOG FUNCTION ARGUMENT...
    local name=$1
    shift
    "$@" >"$log/$name.log" 2>&1 || echo "test-clients: $name could not be installed: $(tail -n 1 "$log/$name.log")" >&2
}

echo "Fetching what is not there yet …" >&2
if command -v npm >/dev/null; then step agents-npm npm_clients; else echo "test-clients: without npm, no clients from there" >&2; fi
step agents-python python_clients agents python
step agents-frameworks python_clients frameworks frameworks
step agents-more-frameworks python_clients more-frameworks more-frameworks
step agents-semantic-kernel python_clients semantic-kernel semantic-kernel pybars4 pymeta3
step agents-aider python_clients aider aider
step agents-llamaindex python_clients llamaindex llamaindex
step agents-open-webui python_clients openwebui open-webui
cp tests/clients/drivers/*.mjs "$agents/" # node looks for packages beside the script

PYTHONPATH=. .venv/bin/python -m tests.clients.run "$@"
