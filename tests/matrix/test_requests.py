"""A made-up request of each client dialect means the same to an upstream of each dialect."""

import json
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from sluice.errors import BadRequest
from sluice_plugins.anthropic.schemas import answer_schema
from sluice_plugins.tool_schemas import is_closed
from tests.matrix import clients, upstreams
from tests.matrix.lanes import CLIENTS, UPSTREAMS, parsed, sent
from tests.matrix.talk import Picture, Results, Talk, normal, talks, texts_first

EXAMPLES = int(os.environ.get("SLUICE_MATRIX_EXAMPLES", "8"))
"""Of each pair of dialects; for a long look, 2000."""
PAIRS = [
    (client, upstream) for client in CLIENTS for upstream in UPSTREAMS if not client == upstream == "gemini"
]
"""But for Gemini's own, whose requests are passed on as they came (tests/plugins/gemini)."""
bounded = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def meant(talk: Talk, client: str, upstream: str) -> dict[str, Any]:
    """What of a talk both dialects have words for, as the upstream shall see it."""
    can, takes = clients.CAN[client], upstreams.TAKES[upstream]
    turns = _normal(_told(talk, "failed" in can, "failed" in takes), client, upstream)
    if upstream == "ollama":
        turns = _without_kinds(turns)
    choice = (talk.choice or "auto") if "choice" in can else "auto"
    sampling = {name: value for name, value in talk.sampling.items() if name in can & takes}
    if "anthropic" in (client, upstream):
        sampling.setdefault("max_tokens", 4096)
    plain = choice in ("auto", "none") and not any(isinstance(turn, Results) for turn in talk.turns[-2:])
    return {
        "turns": turns,
        "system": talk.system,
        "choice": choice if talk.tools else "auto",
        "one_call": talk.one_call and "one_call" in can & takes if choice != "none" else None,
        "sampling": None if talk.effort else sampling,
        "thinks": bool(talk.effort) if plain else None,
        "format": _answers_format(talk, client, upstream),
        "tools": [(tool.name, tool.description, tool.parameters) for tool in talk.tools],
        "strict": [
            tool.strict and "strict" in can and (client == upstream or is_closed(tool.parameters))
            for tool in talk.tools
        ]
        if "strict" in takes
        else None,
    }


def _answers_format(talk: Talk, client: str, upstream: str) -> Any:
    if (talk.format == "json" and client == "anthropic") or (upstream == "cohere" and talk.tools):
        return ""  # Cohere takes tools or a format
    if isinstance(talk.format, dict) and upstream in ("anthropic", "bedrock") and client != upstream:
        return answer_schema(talk.format)
    return talk.format


def _normal(turns: list[Any], client: str, upstream: str) -> list[Any]:
    passed_on = client == upstream == "openai"
    found = normal(turns, follow=upstream in upstreams.FOLLOW and not passed_on)
    return texts_first(found) if "ollama" in (client, upstream) else found


def _told(talk: Talk, client_tells: bool, upstream_tells: bool) -> list[Any]:
    """The turns, failures as they can be told: by a word, where there is no flag."""
    turns: list[Any] = []
    for turn in talk.turns:
        if isinstance(turn, Results):
            results = []
            for result in turn.results:
                text, failed = result.text, result.failed and client_tells
                if failed and not upstream_tells:
                    text = text if text.lower().startswith("error") else f"Error: {text}"
                    failed = False
                results.append(type(result)(text, result.pictures, failed))
            turn = Results(tuple(results))
        turns.append(turn)
    return turns


def _without_kinds(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_kinds(inner) for inner in value]
    return Picture("", value.data) if isinstance(value, Picture) else value


@bounded
@given(talk=talks())
def test_a_request_means_the_same_at_its_upstream(talk: Talk) -> None:
    for client, upstream in PAIRS:
        unlike = differences(talk, client, upstream)
        assert not unlike, f"{client} to {upstream}: {unlike}"


def differences(talk: Talk, client: str, upstream: str) -> dict[str, Any]:
    """What an upstream sees otherwise than it was meant, by its name: (seen, meant)."""
    body = json.dumps(clients.WRITERS[client](talk)).encode()
    chat = parsed(client, body, stream=talk.stream)
    expected = meant(talk, client, upstream)
    if upstream == "ollama" and expected["choice"] not in ("auto", "none"):
        with pytest.raises(BadRequest, match="tool_choice"):
            sent(UPSTREAMS[upstream], chat)
        return {}
    seen = upstreams.READERS[upstream](sent(UPSTREAMS[upstream], chat))
    choice, tools = seen.choice or "auto", expected["tools"]
    if upstream == "ollama":  # it is made to call none by having none
        tools, choice = ([] if expected["choice"] == "none" else tools), expected["choice"]
    if expected["choice"].startswith("the ") and (
        upstream == "cohere" or (client == "gemini" and upstream != "gemini")
    ):  # no other is left
        tools = [tool for tool in tools if f"the {tool[0]}" == expected["choice"]]
        choice = expected["choice"] if choice == "required" else choice
    expected["tools"] = tools
    if client == "gemini":  # which has no word for it, and may have left tools out
        expected["strict"] = None
    found = {
        "turns": _normal(seen.turns, client, upstream),
        "system": seen.system,
        "choice": choice if talk.tools else "auto",
        "one_call": seen.one_call,
        "sampling": seen.sampling,
        "thinks": seen.thinks,
        "format": seen.format,
        "tools": seen.tools,
        "strict": seen.strict,
    }
    return {
        name: (value, expected[name]) for name, value in found.items() if expected[name] not in (value, None)
    }
