"""Anthropic's own SDK, and the AI SDK's provider of its API, read every recorded stream of every protocol
through the gateway; whole answers, counts and lists are read by Anthropic's.

Of recorded messages it must show the same as when it asks the provider directly; of other vendors' streams
what the manifest says. The counts passed / all are written to the terminal.
"""

import json
from typing import Any

import pytest

from tests import corpus
from tests.e2e.gateways import HEAD, KEY, gateway
from tests.e2e.held import STOPS
from tests.e2e.test_corpus import report
from tests.fakes.rawserver import RawServer
from tests.plugins.openai.test_corpus import GLUED
from tests.sdks.running import Shown, answers, need
from tests.sdks.test_sdks import FIELDS, MESSAGES, RECORDED, asks, configuration, fails, is_cut, replays
from tests.sdks.test_sdks import promised_finish as finish_of

SDK, AI_SDK = "py_anthropic", "js_ai_sdk_anthropic"
SDKS = [(SDK, 0), (AI_SDK, 1)]
FINISH = {"tool_calls": "tool_use", "stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}
"""The AI SDK's words for the reasons why an answer ended."""
pytestmark = [pytest.mark.timeout(240), pytest.mark.skipif(not MESSAGES, reason=corpus.ABSENT)]


@pytest.mark.parametrize(("sdk", "part"), SDKS)
async def test_a_recorded_message_shows_the_same_as_directly(
    sdk: str, part: int, pytestconfig: pytest.Config
) -> None:
    need(sdk)
    numbers = corpus.share(len(MESSAGES), part)
    async with (
        RawServer(replays(MESSAGES)) as provider,
        gateway(configuration(provider.url, "anthropic", numbers)) as running,
    ):
        directly = asks(provider.url, "k", [f"m{n}" for n in numbers])
        shown = await answers(
            sdk, [*directly, *asks(running.url, KEY, [f"{lane}{n}" for n in numbers for lane in "fh"])]
        )
    wrong = {}
    for n in numbers:
        one = shown[f"m{n}"]
        for lane in "fh":
            other = shown[f"{lane}{n}"]
            if one.error is not None:  # the gateway's own account: not in the provider's words
                same = other.error is not None and other.error.status in (502, 404)
            else:
                same = all(getattr(one, field) == getattr(other, field) for field in FIELDS)
            if not same:
                wrong[f"{lane} {MESSAGES[n].file}"] = (one, other)
    report(
        pytestconfig,
        f"{sdk}, recorded messages, both lanes: {2 * len(numbers) - len(wrong)} / {2 * len(numbers)}",
    )
    assert wrong == {}


@pytest.mark.parametrize(("sdk", "part"), SDKS)
async def test_other_vendors_streams_show_what_their_manifest_says(
    sdk: str, part: int, pytestconfig: pytest.Config
) -> None:
    need(sdk)
    numbers = corpus.share(len(RECORDED), part + 2)
    async with (
        RawServer(replays(RECORDED)) as provider,
        gateway(configuration(f"{provider.url}/v1", "openai", numbers)) as running,
    ):
        shown = await answers(sdk, asks(running.url, KEY, [f"f{n}" for n in numbers]))
    wrong = {RECORDED[n].file: found for n in numbers if (found := difference(RECORDED[n], shown[f"f{n}"]))}
    report(pytestconfig, f"{sdk}, other vendors' streams: {len(numbers) - len(wrong)} / {len(numbers)}")
    assert wrong == {}


def difference(recorded: corpus.Recorded, shown: Shown) -> str:
    expected = recorded.expected
    ends_badly = fails(recorded) or is_cut(recorded)
    if (shown.error is not None) is not ends_badly:
        return f"error: {shown.error}"
    if shown.text != expected.text + (expected.refusal or "") or shown.reasoning != (
        expected.reasoning or ""
    ):
        return f"said {shown.text[-200:]!r}, {shown.reasoning[-200:]!r}"
    wanted = expected.tool_calls or []
    if recorded.file not in GLUED and not ends_badly:
        found = [(name, parsed(given) if isinstance(given, str) else given) for name, given in shown.calls]
        complete = [(call.name, parsed(call.arguments)) for call in wanted]
        if any(given is None for _, given in complete):
            found, complete = [name for name, _ in found], [name for name, _ in complete]  # type: ignore[misc]
        if found != complete:
            return f"calls: {found}, not {complete}"
    reason = "content_filter" if expected.refusal else finish_of(recorded)
    told = FINISH.get(str(shown.finish), str(shown.finish))
    return "" if ends_badly or STOPS[told] == reason else f"finish: {shown.finish}, not {reason}"


def parsed(arguments: str) -> Any:
    """None where they are the beginning of an object: the SDK shows what it makes of the piece."""
    try:
        return json.loads(arguments or "{}")
    except ValueError:
        return None if arguments.startswith("{") else {"INVALID_JSON": arguments}


async def test_whole_messages_counts_models_and_errors() -> None:
    need("py_anthropic_whole")
    tiers = "{tiers: [[{upstream: echo, model: echo}]]}"
    config = f"{HEAD}\nupstreams: {{echo: {{backend: echo}}}}\naliases: {{chat: {tiers}, b: {tiers}, c: {tiers}}}\n"
    async with gateway(config) as running:
        [ask] = asks(running.url, KEY, ["chat"])
        named = [
            ask.__class__(name, ask.base_url, ask.key, ask.body) for name in ("models:", "count:", "whole:")
        ]
        tools = {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}
        bound = ask.__class__("bound:", ask.base_url, ask.key, {**ask.body, **tools})
        unknown = ask.__class__("unknown:", ask.base_url, ask.key, {**ask.body, "model": "no"})
        stranger = ask.__class__("stranger:", ask.base_url, "sk-nobody", ask.body)
        shown = await answers("py_anthropic_whole", [*named, bound, unknown, stranger])
    assert (shown["models:"].text, shown["models:"].finish) == ("chat,b,c", "chat")
    assert shown["count:"].usage == (1, 0)
    assert (shown["whole:"].text, shown["whole:"].finish) == ("You said: ?", "end_turn")
    told = {name: (error.name, error.status) for name in shown if (error := shown[name].error) is not None}
    assert told == {
        "bound:": ("BadRequestError", 400),
        "unknown:": ("NotFoundError", 404),
        "stranger:": ("AuthenticationError", 401),
    }
