"""A made-up answer of each upstream dialect means the same to a client of each dialect, streamed and whole,
in any cut."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.matrix import answers, clients, hearing
from tests.matrix.answers import Answer
from tests.matrix.lanes import answered, parsed
from tests.matrix.talk import Call, Talk, User
from tests.matrix.test_requests import PAIRS, bounded
from tests.wire import cuts


@bounded
@given(
    answer=answers.answers(),
    stream=st.booleans(),
    seed=st.integers(0, 999),
    longest=st.sampled_from([1, 7, 60, 5000]),
)
def test_an_answer_means_the_same_to_its_client(
    answer: Answer, stream: bool, seed: int, longest: int
) -> None:
    for client, upstream in PAIRS:
        if stream or client != "widget":  # whose whole answers are nothing but a text
            unlike = differences(client, upstream, answer, stream=stream, seed=seed, longest=longest)
            assert not unlike, f"{upstream} to {client}: {unlike}"


def asked(client: str, *, stream: bool) -> Any:
    body = clients.WRITERS[client](Talk((User(("Hi",)),), stream=stream))
    if client in ("openai", "widget") and stream:
        body["stream_options"] = {"include_usage": True}
    return parsed(client, json.dumps(body).encode(), stream=stream)


def differences(
    client: str, upstream: str, answer: Answer, *, stream: bool, seed: int, longest: int
) -> dict[str, Any]:
    """What a client hears otherwise than it was meant, by its name: (heard, meant)."""
    body = answers.WRITERS[upstream](answer)
    out = answered(client, upstream, asked(client, stream=stream), cuts.random(body, seed, longest))
    heard = hearing.READERS[client](out, stream=stream)
    end = answer.end if answer.end != "content_filter" or upstream in answers.FILTERS else "stop"
    if client in ("responses", "gemini", "ollama") and end == "tool_calls":
        end = "stop"
    expected = {
        "text": answer.text,
        "thought": answer.thought,
        "calls": _calls(upstream, list(answer.calls)),
        "end": end,
        "counts": _counts(client, upstream, answer),
    }
    found = {
        "text": heard.text,
        "thought": heard.thought,
        "calls": _calls(upstream, heard.calls),
        "end": heard.end,
        "counts": heard.counts,
    }
    if (
        not client == upstream in ("gemini", "ollama")
    ):  # passed on as it came: these may give their calls no ids
        assert len({call.id for call in heard.calls}) == len(heard.calls)
    return {name: (value, expected[name]) for name, value in found.items() if value != expected[name]}


def _calls(upstream: str, calls: list[Call]) -> list[Call]:
    """Some upstreams give their calls no ids."""
    return [
        Call("" if upstream in ("gemini", "ollama") else call.id, call.name, call.arguments) for call in calls
    ]


def _counts(client: str, upstream: str, answer: Answer) -> tuple[int, int, int, int]:
    input, output, cached, reasoning = answer.counts
    tells_cached, tells_reasoning = answers.COUNTS[upstream]
    if client == "ollama":
        return input, output, -1, -1
    return input, output, cached if tells_cached else 0, reasoning if tells_reasoning else 0
