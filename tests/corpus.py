"""Reader of the recorded provider streams in ../shared/corpus (its README says what they are).

They are read where they lie and never copied into the repository; where they are absent the tests skip and
say why.

    from tests import corpus

    @pytest.mark.parametrize("recorded", corpus.params("anthropic"))
    def test_every_recorded_stream(recorded: corpus.Recorded) -> None:
        decoder.feed(recorded.body) ...; assert ... == recorded.expected
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from _pytest.mark.structures import ParameterSet

ROOT = Path(__file__).resolve().parent.parent.parent / "shared" / "corpus"
EVERY = "SLUICE_TEST_CORPUS" in os.environ
"""`make test-corpus`: each test takes every stream, each way."""
SHARES = 6
ABSENT = f"the recorded provider streams are not here ({ROOT})"


class ToolCall(msgspec.Struct):
    """`arguments` is JSON text, as the model wrote it; `kind` where the provider has more than functions."""

    name: str | None
    arguments: str
    id: str | None = None
    kind: str | None = None


class Expected(msgspec.Struct):
    """What the vendor's own SDK made of the stream. `usage` has the SDK's keys (input_tokens, output_tokens
    …)."""

    text: str = ""
    reasoning: str | None = None
    tool_calls: list[ToolCall] | None = None
    finish_reason: str | int | None = None
    usage: dict[str, int | None] | None = None
    refusal: str | None = None
    tool_plan: str | None = None


class Recorded(msgspec.Struct):
    """One line of MANIFEST.jsonl. `outcome` says what a client may conclude (ok, stream_error, http_error
    …)."""

    file: str
    protocol: str
    vendor: str
    http_status: int
    content_type: str
    outcome: str
    expected: Expected
    special: list[str] = []
    sdk_error: dict[str, Any] | None = None
    note: str = ""

    @property
    def body(self) -> bytes:
        """The response's body, as it came over the wire."""
        return (ROOT / self.file).read_bytes()


def streams(*protocols: str) -> list[Recorded]:
    """The manifest's entries of these protocols (of all, where none is named), in its order; empty where it
    is absent."""
    manifest = ROOT / "MANIFEST.jsonl"
    if not manifest.exists():
        return []
    lines = manifest.read_bytes().splitlines()
    entries = [msgspec.json.decode(line, type=Recorded) for line in lines if line.strip()]
    return [entry for entry in entries if not protocols or entry.protocol in protocols]


def share(count: int, part: int) -> range:
    """The numbers of the streams that one of several like tests takes: every sixth of `count`, so that tests
    of six consecutive `part`s take all. With `make test-corpus` each takes all."""
    return range(count) if EVERY else range(part % SHARES, count, SHARES)


def params(*protocols: str, where: Callable[[Recorded], bool] = lambda entry: True) -> list[ParameterSet]:
    """`streams` for `pytest.mark.parametrize`, one test a file; a single skipped one where the corpus is
    absent."""
    found = [entry for entry in streams(*protocols) if where(entry)]
    if not found:
        return [pytest.param(None, marks=pytest.mark.skip(reason=ABSENT), id="absent")]
    return [pytest.param(entry, id=entry.file) for entry in found]
