#!/usr/bin/env bash
# `make run`: serves config/gateway.dev.yaml, and shows how to talk to it as soon as it listens. PORT (8080) is the API's;
# the admin port is the next one, or ADMIN_PORT.
set -euo pipefail
cd "$(dirname "$0")/.."
sluice=.venv/bin/sluice
export PORT="${PORT:-8080}"
if ! [[ $PORT =~ ^[0-9]{1,5}$ ]] || ((10#$PORT < 1 || 10#$PORT > 65534)); then
    echo "make run: PORT is a number from 1 to 65534, such as PORT=8090" >&2
    exit 2
fi
export ADMIN_PORT="${ADMIN_PORT:-$((10#$PORT + 1))}"

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

for port in "$PORT" "$ADMIN_PORT"; do
    if listening "$port"; then
        echo "make run: something listens on 127.0.0.1:$port already (another make run?). Another port: make run PORT=$((10#$PORT + 10))" >&2
        exit 1
    fi
done

show_calls() {
    # whatever ends the gateway (Ctrl-C, a port that was taken meanwhile) ends the waiting too
    until listening "$PORT"; do
        kill -0 $$ 2>/dev/null || return 0
        sleep 0.05
    done
    cat <<TEXT

Ready. The chat API, as NDJSON:

  curl -N http://127.0.0.1:$PORT/v1/chat/stream -H 'x-api-key: sk-sluice-dev' -H 'content-type: application/json' \\
    -d '{"sessionId": "demo", "message": "Tell me something that takes a while to say."}'

The OpenAI API:

  curl -N http://127.0.0.1:$PORT/v1/chat/completions -H 'authorization: Bearer sk-sluice-dev' -H 'content-type: application/json' \\
    -d '{"model": "echo", "stream": true, "messages": [{"role": "user", "content": "Hello from curl!"}]}'

In the terminal:

  SLUICE_API_KEY=sk-sluice-dev .venv/bin/sluice chat --url http://127.0.0.1:$PORT

Pages for operators (sign in with sk-sluice-dev): http://127.0.0.1:$ADMIN_PORT/ui/
The chat widget: http://127.0.0.1:$PORT/demo

TEXT
}

show_calls &
exec $sluice serve --config config/gateway.dev.yaml
