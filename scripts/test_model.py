"""Talk to a real model through the gateway: `test_model.py PYTHON-WITH-THE-MODEL MODEL.gguf` (see
test_model.sh).

Two turns of one session through the NDJSON API, the second of which shows that the model is given the first;
one call through OpenAI's SDK; the server's other API, Anthropic's, to callers of both; clients that nobody here wrote,
of every dialect, by both (tests/clients/at_model.py), as far as `make test-clients` has installed them; then what the
gateway says of itself: its log lines and the time to the first token.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import ProxyHandler, Request, build_opener

from tests.clients.at_model import failures
from tests.e2e.gateway_process import DIGEST, KEY, GatewayProcess, free_port, serving

CONFIG = f"""
upstreams:
  local:
    backend: openai
    base_url: "http://127.0.0.1:${{MODEL_PORT}}/v1"
    timeouts: {{ first_token: 2m }}
    force: {{ max_tokens: 40 }}
  messages:
    backend: anthropic
    base_url: "http://127.0.0.1:${{MODEL_PORT}}"
    timeouts: {{ first_token: 2m }}
    force: {{ max_tokens: 40 }}
aliases:
  gemma: {{ unsupported: drop, tiers: [[{{ upstream: local, model: gemma-3-270m }}]] }}
  gemma-by-messages: {{ unsupported: drop, tiers: [[{{ upstream: messages, model: gemma-3-270m }}]] }}
keys: [{{ id: test-model, digest: "{DIGEST}", default_alias: gemma }}]
"""
TURNS = ("My name is Ada and I live in Lisbon. What is the capital of Portugal?", "In which city do I live?")
SDK = """
import os, openai
client = openai.OpenAI(base_url=os.environ["BASE_URL"], api_key=os.environ["API_KEY"], max_retries=0)
with client.chat.completions.create(model="gemma", stream=True, stream_options={"include_usage": True}, max_tokens=40,
        messages=[{"role": "user", "content": "What is the capital of France?"}]) as stream:
    for chunk in stream:
        for choice in chunk.choices:
            print(choice.delta.content or "", end="", flush=True)
        usage = chunk.usage or None
print(f"\\n  [model={chunk.model} prompt_tokens={usage.prompt_tokens} completion_tokens={usage.completion_tokens}]")
"""


def main() -> None:
    python, model = sys.argv[1:3]
    port = free_port()
    with model_server(python, model, port), serving(CONFIG, {"MODEL_PORT": str(port)}) as gateway:
        print("--- POST /v1/chat/stream, two turns of one session")
        inputs = [say(gateway, message) for message in TURNS]
        print(
            "--- POST /v1/chat/completions, OpenAI's SDK\nuser:  What is the capital of France?\nmodel:",
            end="",
            flush=True,
        )
        env = {"BASE_URL": gateway.api + "/v1", "API_KEY": KEY}
        subprocess.run([python, "-c", SDK], env=env, check=True, timeout=120)
        print("--- the same model by Anthropic's API")
        for path in ("/v1/messages", "/v1/chat/completions"):
            for stream in (False, True):
                ask(gateway, path, stream=stream)
        print("--- clients that nobody here wrote")
        failed = failures(gateway.api, KEY, ("gemma", "gemma-by-messages"))
        report(gateway)
    if failed:
        sys.exit(f"test-model: {failed} clients were not answered as they expect")
    if not inputs[1] > inputs[0]:
        sys.exit("test-model: the second turn's prompt is not longer than the first: where is the history?")


@contextmanager
def model_server(python: str, model: str, port: int) -> Iterator[None]:
    command = [python, "scripts/model_server.py", model, str(port)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if "listening" not in (line := process.stdout.readline()):
            sys.exit(f"test-model: the model's server does not start: {line}")
        yield
    finally:
        process.stdin.close()
        process.terminate()
        process.wait(20)


def say(gateway: GatewayProcess, message: str) -> int:
    """One turn, printed as it arrives. Returns how many tokens the model was given."""
    body = json.dumps({"sessionId": "test-model", "message": message}).encode()
    headers = {"x-api-key": KEY, "content-type": "application/json"}
    request = Request(gateway.api + "/v1/chat/stream", body, headers)
    print(f"user:  {message}\nmodel:", end="", flush=True)
    with build_opener(ProxyHandler({})).open(request, timeout=180) as response:
        for line in response:
            match json.loads(line or b"{}") if line.strip() else {}:
                case {"type": "token", "token": token}:
                    print(token, end="", flush=True)
                case {"type": "done", "message": str(text), "usage": dict(usage)} if text:
                    print(f"\n  [{len(text)} characters, usage {usage}]")
                    return int(usage["inputTokens"])
                case {"type": "error"} as error:
                    sys.exit(f"\ntest-model: {error}")
    sys.exit("\ntest-model: the stream ended without a done line that has a text and its usage")


def ask(gateway: GatewayProcess, path: str, *, stream: bool) -> None:
    """One call by this dialect, to the upstream that speaks Anthropic's; its end and its usage are looked
    for."""
    body = {
        "model": "gemma-by-messages",
        "max_tokens": 20,
        "stream": stream,
        "messages": [{"role": "user", "content": "What is the capital of France?"}],
    }
    headers = {"x-api-key": KEY, "content-type": "application/json"}
    request = Request(gateway.api + path, json.dumps(body).encode(), headers)
    with build_opener(ProxyHandler({})).open(request, timeout=180) as response:
        told = response.read().decode()
    ends = r'"(?:stop_reason|finish_reason)": ?"(?:end_turn|max_tokens|stop|length)"'
    if not re.search(ends, told) or not re.search(r'"(?:text|content)": ?"[^"]', told):
        sys.exit(f"test-model: {path} ({'streamed' if stream else 'whole'}) has no text or no end:\n{told}")
    print(f"{path}, {'streamed' if stream else 'whole'}: {len(told)} bytes")


def report(gateway: GatewayProcess) -> None:
    print("--- the gateway's log")
    print("\n".join(gateway.lines))
    print("--- the gateway's /metrics: time to first token")
    found = re.findall(
        r"^(\S*time_to_first_token_seconds)_(sum|count)(\{.*\}) (\S+)$", gateway.scrape(), re.MULTILINE
    )
    values = {(name + labels, kind): float(value) for name, kind, labels, value in found}
    for (series, kind), count in values.items():
        if kind == "count" and count:
            print(f"{series}: {count:.0f} observed, {values[series, 'sum']:.3f} s in all")


main()
