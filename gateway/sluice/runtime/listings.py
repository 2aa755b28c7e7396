"""Fetches upstreams' lists of models, for wildcard aliases that are shown as what they stand for (`expand`).

Nothing waits for a list: it is fetched in the background, kept while the upstream does not answer, and
bounded. What an upstream reports about its models besides their names is kept, too.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from sluice.backends.transport import Transport, UpstreamRequest
from sluice.config.types import Alias, Target, Timeouts, targets_of
from sluice.errors import StaleConnection, UpstreamError
from sluice.model.facts import NOTHING, Facts
from sluice.runtime.wildcards import may_be_a_model

EVERY, AGAIN = 600.0, 60.0
"""Seconds until a list is fetched again, after success and after a failure."""
BODY = 8 << 20
MAX_MODELS = 4000
"""Maximum bytes of a list, and of its models that are kept."""
ReportFailure = Callable[[str], None]
"""Called with the reason why a list could not be fetched, once until the reason changes."""


class Listing(msgspec.Struct, eq=False):
    """One upstream's list. `models`: by name, in its order; empty until the first list has arrived. `failed`:
    why the latest one could not be fetched.
    """

    models: Mapping[str, Facts] = {}
    failed: str = ""
    task: "asyncio.Task[None] | None" = None

    async def close(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])


async def follow(
    listing: Listing,
    transport: Transport,
    request: UpstreamRequest,
    timeouts: Timeouts,
    *,
    report: ReportFailure,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Keeps a list current until cancelled."""
    while True:
        try:
            listing.models = models_in(await _fetched(transport, request, timeouts))
        except StaleConnection:
            continue
        except UpstreamError as error:
            if listing.failed != error.kind:
                report(error.kind)
            listing.failed = error.kind
            await sleep(AGAIN)
        else:
            listing.failed = ""
            await sleep(EVERY)


async def _fetched(transport: Transport, request: UpstreamRequest, timeouts: Timeouts) -> bytes:
    try:
        async with (
            asyncio.timeout(timeouts.connect + timeouts.headers),
            transport.send(request, connect=timeouts.connect, headers=timeouts.headers) as response,
        ):
            body = await response.read(BODY + 1)
    except TimeoutError:
        raise UpstreamError("headers_timeout") from None
    if response.status != 200:
        raise UpstreamError("server_error", status=response.status)
    if len(body) > BODY:
        raise UpstreamError("garbled")
    return body


class _List(msgspec.Struct):
    data: list[msgspec.Raw] = []  # OpenAI's, Anthropic's
    models: list[msgspec.Raw] = []  # Google's, Ollama's, Cohere's


class _Item(msgspec.Struct):
    id: str = ""
    name: str = ""
    context_length: Any = None  # OpenRouter, Cohere
    max_model_len: Any = None  # vLLM
    context_window: Any = None  # Groq
    max_input_tokens: Any = None  # Anthropic
    inputTokenLimit: Any = None
    max_completion_tokens: Any = None
    max_tokens: Any = None
    outputTokenLimit: Any = None

    @property
    def facts(self) -> Facts:
        context = (
            self.context_length,
            self.max_model_len,
            self.context_window,
            self.max_input_tokens,
            self.inputTokenLimit,
        )
        output = (self.max_completion_tokens, self.max_tokens, self.outputTokenLimit)
        found = Facts(_first(context), _first(output))
        return NOTHING if found == NOTHING else found


_list_of = msgspec.json.Decoder(_List).decode
_item_of = msgspec.json.Decoder(_Item).decode
_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def models_in(body: bytes) -> Mapping[str, Facts]:
    """Returns the models of a list, in any of the upstreams' formats. Raises UpstreamError for anything
    else."""
    try:
        listed = _list_of(body)
    except _MALFORMED:
        raise UpstreamError("garbled") from None
    found: dict[str, Facts] = {}
    for raw in (*listed.data, *listed.models):
        try:
            item = _item_of(raw)
        except _MALFORMED:
            continue
        name = item.id or item.name.removeprefix("models/")
        if may_be_a_model(name) and len(found) < MAX_MODELS:
            found.setdefault(name, item.facts)
    return found


def _first(figures: tuple[Any, ...]) -> int:
    return next((figure for figure in figures if type(figure) is int and 0 < figure < 1 << 40), 0)


def listed_by(alias: Alias) -> Target | None:
    """Returns the target whose upstream lists the models of a wildcard alias: the first that gets the
    caller's name."""
    return next((target for target in targets_of(alias.tiers[0]) if "*" in target.model), None)


def names_in(listing: Mapping[str, Facts], alias: str, model: str) -> list[tuple[str, str]]:
    """Returns the names that callers use for the models of a wildcard alias, each with the upstream's own;
    `model` is the target's.
    """
    before, _, behind = model.partition("*")
    least = len(before) + len(behind)
    own = [
        name for name in listing if name.startswith(before) and name.endswith(behind) and len(name) > least
    ]
    return [(alias[:-1] + name[len(before) : len(name) - len(behind)], name) for name in own]
