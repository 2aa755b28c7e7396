"""Clients that nobody here wrote, on the task of this folder, at a real model behind the gateway (scripts/test_model.py).

What is asserted of each: the gateway answered nothing but successes, the client ended as it does where all is well, and
showed words of the model's by one alias at least. Whether the model does the task is reported and not asserted: one of
270 million parameters that was never taught to chat calls no tool, or one with arguments that the tool does not take,
writes to the limit, or ends at once, which the client then says (`MODELS_OWN`). That is the model's doing, as the same
client does the whole task with a scripted provider (docs/clients.md). Agents are left out but for aider: their prompts
alone have five times the tokens that this model is given room for.
"""

import asyncio
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from tests.clients.clients import CLIENTS, Client
from tests.clients.run import Ended, place, started
from tests.clients.watch import Watch

CHOSEN = (
    "openai (JavaScript), `chat.completions.stream`", "openai (JavaScript), `responses.stream`",
    "@anthropic-ai/sdk, `messages.stream`", "@google/genai, `chats`", "ollama (Python)", "llm", "aider",
)  # fmt: skip
"""At least one of each client dialect."""
PATIENCE = 300
TRIES = 5
"""Answers that a client asks for until one has words: the model often ends at once."""
MODELS_OWN = re.compile(
    r"(?:Unexpected token|JSON|is not a function|unexpected keyword|missing \d+ required|Tool .* not found)|status incomplete"
)
"""What clients say where they cannot do what the model wants of them."""
SHOWN = 60


@dataclass(frozen=True)
class Row:
    """One client by one alias. `problem` is "" where nothing was wrong with what it was answered."""

    client: str
    model: str
    requests: int
    said: str
    problem: str
    models_own: str
    tries: int = 1

    def __str__(self) -> str:
        shown = (
            f"said {self.said[-SHOWN:]!r}" if self.said else f"the model ended {self.tries} answers at once"
        )
        did = self.problem or self.models_own or shown
        tools = "no tool called" if self.requests < 2 else f"{self.requests} requests: tools called"
        return f"{self.client}, {self.model}: {'FAILED' if self.problem else 'answered'}; {tools}; {did}"


async def rows(address: str, key: str, models: Sequence[str]) -> list[Row]:
    """One client after the other: the model has the machine to itself."""
    host = urlsplit(address)
    gateway = (host.hostname or "", host.port or 0)
    found = []
    for client in [client for client in CLIENTS if client.name in CHOSEN]:
        for model in models:
            if not client.version:
                print(
                    f"{client.name}: skipped, {client.package} is not installed (make test-clients)",
                    flush=True,
                )
                break
            for tries in range(1, TRIES + 1):
                one = replace(await row(replace(client, patience=PATIENCE), gateway, key, model), tries=tries)
                if one.said or one.problem:
                    break
            found.append(one)
            print(one, flush=True)
    return found


async def row(client: Client, gateway: tuple[str, int], key: str, model: str) -> Row:
    async with Watch(gateway) as watch, place(watch.url, model) as there:
        there = replace(there, key=key)
        client.settings(there)
        ended = await started(client.command(there), client, there)
    said, error = told(client, ended)
    problem = own = ""
    if unexpected := watch.unsuccessful - client.refused:
        problem = f"the gateway answered {', '.join(sorted(unexpected))}"
    elif not watch.successful:
        problem = "it asked for nothing"
    elif error and MODELS_OWN.search(error):
        own = f"the client says {error[-SHOWN:]!r}"
    elif error:
        problem = f"the client says {error[-300:]!r}"
    return Row(client.name, model, watch.successful, said, problem, own)


def told(client: Client, ended: Ended) -> tuple[str, str]:
    """What the client showed of the answers, and its complaint."""
    if client.many and ended.code == 0:
        driver = json.loads(ended.out.splitlines()[-1])
        return "".join(driver["pieces"]), driver["error"]
    return ended.out.strip(), "" if ended.code == 0 else f"ended with {ended.code}: {ended.err or ended.out}"


def failures(address: str, key: str, models: Sequence[str]) -> int:
    """Runs the clients. Returns how many were not answered as they expect."""
    found = asyncio.run(rows(address, key, models))
    silent = {row.client for row in found} - {row.client for row in found if row.said}
    for client in silent:
        print(f"{client}: FAILED; it showed no words by any alias")
    return sum(bool(row.problem) for row in found) + len(silent)
