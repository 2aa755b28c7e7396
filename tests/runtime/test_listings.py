"""Lists of upstreams' models: what is read of them, how they are kept, and what aliases stand for."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sluice.backends.transport import UpstreamRequest
from sluice.config.types import Timeouts
from sluice.errors import StaleConnection, UpstreamError
from sluice.model.facts import NOTHING, Facts
from sluice.runtime.listings import AGAIN, EVERY, MAX_MODELS, Listing, follow, models_in, names_in


@pytest.mark.parametrize(("body", "models"), [
    ({"data": [{"id": "a"}, {"id": "org/b", "max_model_len": 4096}]}, {"a": NOTHING, "org/b": Facts(4096)}),
    ({"data": [{"id": "a", "context_length": 10, "max_completion_tokens": 5}]}, {"a": Facts(10, 5)}),
    ({"data": [{"id": "claude", "max_input_tokens": 9, "max_tokens": 3}], "has_more": False}, {"claude": Facts(9, 3)}),
    ({"models": [{"name": "models/gemini", "inputTokenLimit": 7, "outputTokenLimit": 2}]}, {"gemini": Facts(7, 2)}),
    ({"models": [{"name": "llama3:latest", "model": "llama3:latest"}]}, {"llama3:latest": NOTHING}),
    ({"data": [{"id": 7}, {"id": ""}, {"id": "a b"}, {"id": "../x"}, {"id": "a", "context_length": "x"}, []]}, {"a": NOTHING}),
    ({"data": [{"id": f"m{n}"} for n in range(MAX_MODELS + 5)]}, {f"m{n}": NOTHING for n in range(MAX_MODELS)}),
    ({}, {}),
])  # fmt: skip
def test_lists_of_all_forms(body: Any, models: Any) -> None:
    assert models_in(json.dumps(body).encode()) == models


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"data":7}'])
def test_what_is_no_list_is_an_error(body: bytes) -> None:
    with pytest.raises(UpstreamError):
        models_in(body)


def test_what_an_alias_stands_for() -> None:
    listing = {"gpt-a": NOTHING, "ft:x": NOTHING, "ft:": NOTHING}
    assert names_in(listing, "openai/*", "*") == [
        ("openai/gpt-a", "gpt-a"),
        ("openai/ft:x", "ft:x"),
        ("openai/ft:", "ft:"),
    ]
    assert names_in(listing, "tuned-*", "ft:*") == [("tuned-x", "ft:x")]


class Fake:
    """An upstream that answers one after another."""

    def __init__(self, *answers: bytes | Exception | int) -> None:
        self.answers = [*answers]
        self.status = 200
        self.body = b""

    @asynccontextmanager
    async def send(self, request: UpstreamRequest, **_: Any) -> AsyncIterator["Fake"]:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        self.status = answer if isinstance(answer, int) else 200
        self.body = b"" if isinstance(answer, int) else answer
        yield self

    async def read(self, limit: int) -> bytes:
        return self.body[:limit]


async def test_the_last_list_stays_while_the_upstream_fails() -> None:
    one, two = b'{"data":[{"id":"a"}]}', b'{"data":[{"id":"b"}]}'
    up: Any = Fake(one, UpstreamError("reset"), 500, 500, b"<html>", StaleConnection("x"), two)
    listing, waits, reasons, seen = Listing(), list[float](), list[str](), list[list[str]]()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        seen.append([*listing.models])
        if not up.answers:
            raise asyncio.CancelledError

    request = UpstreamRequest("http://u/models", (), b"", "GET")
    with pytest.raises(asyncio.CancelledError):
        await follow(listing, up, request, Timeouts(), report=reasons.append, sleep=sleep)
    assert seen == [["a"]] * 5 + [["b"]]
    assert waits == [EVERY, AGAIN, AGAIN, AGAIN, AGAIN, EVERY]
    assert reasons == ["reset", "server_error", "garbled"]
