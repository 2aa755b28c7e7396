#!/usr/bin/env bash
# `make test-clients`: agents from npm, at the versions of tests/clients/package.json, work on a task behind the gateway, whose
# provider is a script. Needs node and npm; some 250 MB of downloads, once.
set -euo pipefail
cd "$(dirname "$0")/.."

agents=.cache/agents
wanted=tests/clients/package.json
command -v npm >/dev/null || { echo "test-clients: npm is needed" >&2; exit 1; }
if ! cmp --silent "$wanted" "$agents/installed.json"; then
    echo "Fetching the agents (250 MB, once) …" >&2
    mkdir -p "$agents"
    cp "$wanted" "$agents/package.json"
    (cd "$agents" && npm install --ignore-scripts --no-audit --no-fund --no-package-lock --loglevel error)
    cp "$wanted" "$agents/installed.json"
fi

modules=$agents/node_modules
echo "Claude Code:"
PYTHONPATH=. .venv/bin/python tests/clients/claude_code.py node "$PWD/$modules/@anthropic-ai/claude-code/cli-wrapper.cjs"
echo "Codex:"
PYTHONPATH=. .venv/bin/python tests/clients/codex.py node "$PWD/$modules/@openai/codex/bin/codex.js"
