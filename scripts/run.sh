#!/usr/bin/env bash
# `make run`: serves config/gateway.dev.yaml, and shows how to talk to it as soon as it listens.
set -euo pipefail
cd "$(dirname "$0")/.."
sluice=.venv/bin/sluice

listening() { (exec 3<>/dev/tcp/127.0.0.1/8080) 2>/dev/null; }

show_calls() {
    # whatever ends the gateway (Ctrl-C, the admin port in use) ends the waiting too
    until listening; do
        kill -0 $$ 2>/dev/null || return 0
        sleep 0.05
    done
    cat <<'TEXT'

Ready. The chat API, as NDJSON:

  curl -N http://127.0.0.1:8080/v1/chat/stream -H 'x-api-key: sk-sluice-dev' -H 'content-type: application/json' \
    -d '{"sessionId": "demo", "message": "Tell me something that takes a while to say."}'

The OpenAI API:

  curl -N http://127.0.0.1:8080/v1/chat/completions -H 'authorization: Bearer sk-sluice-dev' -H 'content-type: application/json' \
    -d '{"model": "echo", "stream": true, "messages": [{"role": "user", "content": "Hello from curl!"}]}'

TEXT
}

# where something listens there already, ours is about to say so and fail
if ! listening; then show_calls & fi
exec $sluice serve --config config/gateway.dev.yaml
