"""Runs clients that nobody here wrote on a task behind the gateway, by upstreams of four dialects, and writes
docs/clients.md.

    python -m tests.clients.run [NAME...]      NAME: a client's name, or a part of some; without any, all run

The task: two tools, one after the other (write, read), then an answer, all streamed. The provider is a script
(provider.py). What is asserted of each run: the client ends well and shows the last answer, each result came
back to the provider, the provider had nothing to refuse, the file is there (agents), the answer came in
pieces (libraries). Each run has folders of its own and nothing of our environment.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.clients.clients import CLIENTS, FILE, Client, Place
from tests.clients.provider import DIALECTS, LAST, OBJECT, TEXT, Provider, Script, Seen
from tests.clients.watch import Watch
from tests.e2e.gateways import HEAD, KEY, Running, gateway
from tests.fakes.rawserver import RawServer

AT_ONCE = 2
OFFLINE = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGSMITH_TRACING": "false", "HF_HUB_OFFLINE": "1",
    "CREWAI_DISABLE_TELEMETRY": "true", "OTEL_SDK_DISABLED": "true",
}  # fmt: skip
"""What else would be looked for in the internet."""
OPTIONS = {name: ", drop: [tools.web_search]" for name in DIALECTS}
OPTIONS["anthropic"] += ", threads: true"
PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
BEGIN, END = "<!-- tests/clients/run.py -->\n", "<!-- end -->\n"
Outcome = dict[str, str]
"""By dialect of the upstream: "" where the task was done, else what went wrong."""


@dataclass(frozen=True)
class Ended:
    out: str
    err: str
    code: int | None


def config(address: str) -> str:
    """An alias for each dialect, of the dialect's name. Codex offers OpenAI's web search, which others have
    not.

    Responses are kept, for the AI SDK's `openai(model)` refers to items of them. Anthropic's upstream keeps
    message threads, as Anthropic does. `unsupported: drop`: Ollama has no forced tools, by which the AI SDK
    has an object from models of Anthropic's API that it does not know.
    """
    upstreams = "".join(
        f'  {name}: {{backend: {name}, base_url: "{address}{dialect.base}", api_key: sk-fake{OPTIONS.get(name, "")}}}\n'
        for name, dialect in DIALECTS.items()
    )
    aliases = "".join(
        f"  {alias(name)}: {{unsupported: drop, tiers: [[{{upstream: {name}, model: fake}}]]}}\n"
        for name in DIALECTS
    )
    head = HEAD.replace("default_alias: chat", f"default_alias: {alias('openai')}")
    return f"{head}\nresponses: {{store: memory}}\nupstreams:\n{upstreams}aliases:\n{aliases}"


def alias(dialect: str) -> str:
    return f"by-{dialect}"


async def outcome(client: Client, provider: Provider, running: Running) -> Outcome:
    """What became of the task by each dialect's upstream."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(*dialects: str) -> Outcome:
        async with turn, Watch(running.address) as watch, place(watch.url, alias(dialects[0])) as there:
            client.settings(there)
            script = Script(
                client.calls(there), client.opening, client.wants_object, client.observed, client.closing,
                client.without_schema,
            )  # fmt: skip
            seen = {dialect: provider.begin(dialect, script) for dialect in dialects}
            command = [*client.command(there), *map(alias, dialects[1:])]
            ended = await started(command, client, there)
            if client.follow_up is not None and ended.code == 0:
                seen[dialects[0]].script = replace(script, opening=LAST)
                ended = await started(client.follow_up(there), client, there)
            lines = ended.out.splitlines() if client.together else [ended.out]
            found = {}
            for number, dialect in enumerate(dialects):
                part = replace(ended, out=lines[number] if number < len(lines) else "")
                found[dialect] = problem(client, part, seen[dialect], there)
                if not found[dialect] and (unexpected := watch.unsuccessful - client.refused):
                    found[dialect] = f"the gateway answered {', '.join(sorted(unexpected))}"
                print(f"{client.name}, {dialect}: {found[dialect] or 'done'}", flush=True)
            return found

    together = [tuple(DIALECTS)] if client.together else [(dialect,) for dialect in DIALECTS]
    found = await asyncio.gather(*(one(*dialects) for dialects in together))
    return {dialect: words for part in found for dialect, words in part.items()}


@asynccontextmanager
async def place(url: str, model: str) -> AsyncIterator[Place]:
    with TemporaryDirectory() as folder:
        work, home = Path(folder).resolve() / "work", Path(folder).resolve() / "home"
        work.mkdir()
        home.mkdir()
        yield Place(url, KEY, model, work, home)


async def started(command: Sequence[str], client: Client, there: Place) -> Ended:
    """The command, with an environment of its own, until it ends or the client's patience is over."""
    env = (
        OFFLINE
        | {"PATH": os.environ["PATH"], "HOME": str(there.home), "NO_PROXY": "127.0.0.1", "TERM": "dumb"}
        | client.env(there)
    )
    process = await asyncio.create_subprocess_exec(
        *command, cwd=there.work, env=env,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(client.patience):
            out, err = await process.communicate()
    except TimeoutError:
        return Ended("", f"did not end within {client.patience} s", None)
    finally:
        if process.returncode is None:
            process.kill()
    return Ended(out.decode(), err.decode(), process.returncode)


def problem(client: Client, ended: Ended, seen: Seen, there: Place) -> str:
    """What went wrong, "" where nothing did."""
    text = ended.out
    if client.many and ended.code == 0:
        told = json.loads(ended.out.splitlines()[-1])
        text = "".join(told["pieces"])
        if told["error"]:
            return f"says {told['error'][-300:]!r}"
        if len(told["pieces"]) < len(LAST.split(" ")) and not client.wants_object:
            return f"the answer came in {len(told['pieces'])} pieces"
    if seen.wrong:
        return f"the provider refused {seen.wrong[0]!r}"
    if ended.code != 0:
        return f"ended with {ended.code}: {(ended.err or ended.out).strip()[-300:]!r}"
    if client.wants_object:
        return "" if _object(text) == OBJECT else f"said {text[-300:]!r}"
    if not _worked(client, seen, there):
        return f"results {seen.results}, said {(text + ended.err)[-300:]!r}"
    return (
        "" if LAST.split() == text.split()[-len(LAST.split()) :] or LAST in text else f"said {text[-300:]!r}"
    )


def _object(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _worked(client: Client, seen: Seen, there: Place) -> bool:
    file = there.work / FILE
    written = file.read_text().strip() == TEXT if file.exists() else False
    match client.calls(there):
        case ():  # the file itself is sent
            return written and TEXT.encode() in seen.bodies[-1]
        case [(name, _), _]:
            return (
                len(seen.results) == 2
                and TEXT in seen.results[1]
                and (written or name.endswith("write_note"))
            )
    return False


def page(text: str, outcomes: dict[Client, Outcome], date: str) -> str:
    """The page with the rows of these clients anew; the others stay. Raises ValueError where it has no place
    for the table."""
    before, _, rest = text.partition(BEGIN)
    table, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{PAGE} has no place for the table")
    old = {line.split(" | ")[0]: line for line in table.splitlines() if line.startswith("| ")}
    new = {f"| {client.name}": _row(client, outcome, date) for client, outcome in outcomes.items() if outcome}
    head = f"| client | version | run on | asks | {' | '.join(DIALECTS)} |\n|---|---|---|---|{'---|' * len(DIALECTS)}\n"
    rows = [(old | new).get(f"| {client.name}", _row(client, {}, "not yet")) for client in CLIENTS]
    return f"{before}{BEGIN}\n{head}" + "".join(f"{row}\n" for row in rows) + f"\n{END}{after}"


def _row(client: Client, outcome: Outcome, date: str) -> str:
    cells = [_cell(outcome[name]) if outcome else "-" for name in DIALECTS]
    return f"| {client.name} | {client.version} | {date} | `{client.routes}` | {' | '.join(cells)} |"


def _cell(problem: str) -> str:
    return f"no: {problem}".replace("|", "\\|").replace("\n", " ") if problem else "done"


def _is_named(client: Client, name: str) -> bool:
    """Returns whether this is one of the clients that are meant: "Pi" is one of them, and no part of Copilot."""
    whole = {other.name.lower() for other in CLIENTS}
    return (
        name.lower() == client.name.lower() if name.lower() in whole else name.lower() in client.name.lower()
    )


async def main(names: Sequence[str]) -> int:
    """How many did not do the task."""
    chosen = [client for client in CLIENTS if not names or any(_is_named(client, name) for name in names)]
    provider = Provider()
    outcomes: dict[Client, Outcome] = {}
    async with RawServer(provider) as server, gateway(config(server.url)) as running:
        for client in chosen:
            if client.version:
                outcomes[client] = await outcome(client, provider, running)
            else:
                outcomes[client] = {}
                print(f"{client.name}: skipped, {client.package} is not installed (.cache/log)", flush=True)
            PAGE.write_text(
                page(PAGE.read_text(), {client: outcomes[client]}, datetime.now(UTC).date().isoformat())
            )
    results = [problem for outcome in outcomes.values() for problem in outcome.values()]
    failed = sum(map(bool, results))
    print(
        f"{len(results) - failed} passed, {failed} failed, {sum(not outcome for outcome in outcomes.values())} skipped"
    )
    return failed


if __name__ == "__main__":
    sys.exit(min(asyncio.run(main(sys.argv[1:])), 1))
