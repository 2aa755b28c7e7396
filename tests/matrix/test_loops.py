"""A tool loop that one vendor began goes on at another: for each client dialect, and any two upstream
dialects.

Ids fit the second vendor's form; what the first sealed goes back to it alone; no mark of ours reaches
anybody.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest

from tests.matrix import answers, clients, hearing, upstreams
from tests.matrix.answers import Answer
from tests.matrix.lanes import CLIENTS, GEMINI_3, UPSTREAMS, Upstream, answered, parsed, sent
from tests.matrix.talk import Call, Picture, Result, Results, Said, Talk, Tool, User, Value, normal

WEATHER = Tool("weather", "", {"type": "object", "properties": {"place": {"type": "string"}}})
TALK = Talk((User(("Is it warm?",)),), "Be brief.", (WEATHER,))
SEAL = "U2VhbGVkIGJ5IGl0cyBtYWtlcg=="
OTHER_SEAL = "QnkgdGhlIG90aGVyIG1ha2VyIQ=="
ODD_IDS = ("functions.weather:0", "call " + "x" * 80)
CALLS = tuple(
    [Call(id, "weather", {"place": place}) for id, place in zip(ODD_IDS, ("Köln\u2028", "Ulm"), strict=True)]
)
PICTURE = Picture("png", "iVBORw0KGgoAAAAN")
RESULTS = (Result("21 °C"), Result("gone", (PICTURE,), True))
FORMS = {"anthropic": "[A-Za-z0-9_-]{1,64}", "bedrock": "[A-Za-z0-9_-]{1,64}"}
MARKS = re.compile(r"sluice:|gemini:|openai:|bedrock:|c2x1aWNlO")
"""What the gateway writes before seals, plain and in base64."""
CARRIES = {
    "anthropic": {"openai", "anthropic", "responses", "gemini"},
    "bedrock": {"openai", "anthropic", "responses", "gemini"},
    "responses": {"openai", "anthropic", "responses", "gemini"},
    "gemini": {"openai", "anthropic", "responses", "gemini"},
}
"""By vendor: clients that keep its seals."""
KIN = {("anthropic", "bedrock"), ("bedrock", "anthropic")}
"""Claude's seals are the same wherever it is."""


def second_turn(client: str, body: Value, heard: hearing.Heard) -> Value:
    """The client's next request: what it heard, as it keeps it, and what its tools gave."""
    ids = [call.id for call in heard.calls]
    match client:
        case "openai" | "widget":
            return {
                **body,
                "messages": [*body["messages"], *heard.again, *clients.openai_results(ids, RESULTS)],
            }
        case "anthropic":
            told = {"role": "user", "content": clients.anthropic_results(ids, RESULTS)}
            return {**body, "messages": [*body["messages"], *heard.again, told]}
        case "responses":
            return {**body, "input": [*body["input"], *heard.again, *clients.responses_results(ids, RESULTS)]}
        case "ollama":
            told_all = clients.ollama_results([(call.id, call.name) for call in heard.calls], RESULTS)
            return {**body, "messages": [*body["messages"], *heard.again, *told_all]}
        case _:
            parts = clients.gemini_results([(call.id, call.name) for call in heard.calls], RESULTS)
            return {**body, "contents": [*body["contents"], *heard.again, {"role": "user", "parts": parts}]}


def looped(client: str, first: str, second: Upstream, *, stream: bool) -> Value:
    """What the second upstream is sent after the first one's answer."""
    return carried(client, ((first, SEAL),), second, stream=stream)


def carried(client: str, before: Sequence[tuple[str, str]], last: Upstream, *, stream: bool) -> Value:
    """What the last upstream is sent after each of those before has answered in turn, with its own seal and
    calls of the same odd ids."""
    talk = Talk(TALK.turns, TALK.system, TALK.tools, stream=stream)
    body = clients.WRITERS[client](talk)
    if client in ("openai", "widget") and stream:
        body["stream_options"] = {"include_usage": True}
    for upstream, seal in before:
        chat = parsed(client, json.dumps(body).encode(), stream=stream)
        sealed = seal if upstream in answers.SEALING else ""
        answer = Answer("It may be.", sealed, "I will look.", CALLS, "tool_calls")
        reads = [answers.WRITERS[upstream](answer)]
        heard = hearing.READERS[client](answered(client, upstream, chat, reads), stream=stream)
        body = second_turn(client, body, heard)
    return sent(last, parsed(client, json.dumps(body).encode(), stream=stream))


@pytest.mark.parametrize("second", UPSTREAMS)
@pytest.mark.parametrize("first", UPSTREAMS)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_loop_goes_on_at_another_vendor(client: str, first: str, second: str) -> None:
    for stream in (True, False) if client != "widget" else (True,):
        wire = looped(client, first, UPSTREAMS[second], stream=stream)
        seen = upstreams.READERS[second](wire)
        assert seen.system == TALK.system
        passed_on = client == second in ("openai", "gemini", "ollama")
        follow = second in upstreams.FOLLOW and not passed_on
        assert normal(seen.turns, follow=follow) == _meant(client, second, follow=follow)
        assert all(re.fullmatch(FORMS.get(second, ".+"), id, re.DOTALL) for id in seen.ids)
        written = json.dumps(wire)
        if not (passed_on or client == second == "responses"):
            assert MARKS.search(written) is None
        if not passed_on:
            sealed = client in CARRIES.get(first, ()) and (first == second or (first, second) in KIN)
            assert (SEAL in written) == sealed


@pytest.mark.parametrize("second", UPSTREAMS)
@pytest.mark.parametrize("first", UPSTREAMS)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_loop_comes_back_to_the_vendor_that_began_it(client: str, first: str, second: str) -> None:
    """What it sealed goes home over the other vendor's turn, and no call is taken for another one."""
    for stream in (True, False) if client != "widget" else (True,):
        wire = carried(client, ((first, SEAL), (second, OTHER_SEAL)), UPSTREAMS[first], stream=stream)
        seen = upstreams.READERS[first](wire)
        assert seen.system == TALK.system
        passed_on = client == first in ("openai", "gemini", "ollama")
        follow = first in upstreams.FOLLOW and not passed_on
        assert normal(seen.turns, follow=follow) == _meant(client, first, follow=follow, rounds=2)
        assert all(re.fullmatch(FORMS.get(first, ".+"), id, re.DOTALL) for id in seen.ids)
        written = json.dumps(wire)
        if not (passed_on or client == first == "responses"):
            assert MARKS.search(written) is None
        if not passed_on:
            assert (SEAL in written) == (client in CARRIES.get(first, ()))
            goes = client in CARRIES.get(second, ()) and (first == second or (second, first) in KIN)
            assert (OTHER_SEAL in written) == goes


def _meant(client: str, second: str, *, follow: bool, rounds: int = 1) -> list[Any]:
    tells = "failed" in clients.CAN[client]
    failed = Result("gone" if not tells or second in ("anthropic", "bedrock", "gemini") else "Error: gone", (
        Picture("", PICTURE.data) if second == "ollama" else PICTURE,
    ), tells and second in ("anthropic", "bedrock", "gemini"))  # fmt: skip
    once = [Said("I will look.", CALLS), Results((RESULTS[0], failed))]
    return normal([*TALK.turns, *once * rounds], follow=follow)


@pytest.mark.parametrize("first", UPSTREAMS)
@pytest.mark.parametrize("client", CLIENTS)
def test_gemini_3_has_a_signature_with_each_first_call(client: str, first: str) -> None:
    for stream in (True, False) if client != "widget" else (True,):
        wire = looped(client, first, GEMINI_3, stream=stream)
        [said] = [content for content in wire["contents"] if content["role"] == "model"]
        signed = [part.get("thoughtSignature") for part in said["parts"] if "functionCall" in part]
        kept = first == "gemini" and client in CARRIES["gemini"]
        assert signed == [SEAL if kept else "skip_thought_signature_validator", None]
