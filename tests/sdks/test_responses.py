"""OpenAI's SDK reads every recorded stream in the Responses dialect, streamed and whole, and LangChain the
streams; both hold what the manifest says."""

from itertools import zip_longest
from typing import Any

import pytest

from tests import corpus
from tests.e2e.gateways import KEY, gateway
from tests.e2e.held import Call, Held
from tests.e2e.test_corpus import CUTS, DIALECTS, RECORDED, Replaying, configuration, difference, report, used
from tests.fakes.rawserver import RawServer
from tests.sdks.running import Ask, Shown, answers, need

DRIVER, LANGCHAIN = "py_openai_responses", "py_langchain_responses"
FINISH = {"max_output_tokens": "length", "content_filter": "content_filter"}

ODD = "ruby_llm-providers-bedrock-mantle-responses"
"""A provider's stream that the SDK's accumulator cannot put together: a part is not announced. It is passed
on as it came."""

pytestmark = [pytest.mark.timeout(240), pytest.mark.skipif(not RECORDED, reason=corpus.ABSENT)]


def held_of(recorded: corpus.Recorded, shown: Shown) -> Held:
    """What the SDK shows, in the words of the corpus' own test; it does not show ids and the cache."""
    names = {name for name, _ in shown.calls}
    ids = [call.id or "" for call in recorded.expected.tool_calls or () if call.name in names]
    calls = [
        Call(name, arguments, id)
        for (name, arguments), id in zip_longest(shown.calls, ids[: len(shown.calls)])
    ]
    finish = FINISH.get(str(shown.finish)) or (
        "tool_calls" if calls else "stop" if shown.finish == "completed" else None
    )
    read, written = shown.usage or (None, None)
    cached = (
        used(recorded.expected.usage)[2]
        if recorded.protocol.startswith("anthropic") and recorded.expected.usage
        else 0
    )
    usage = None if read is None or written is None else (read, written, cached)
    held = Held(200, shown.text + shown.refusal, shown.reasoning, calls, finish, usage)
    if shown.error is not None:
        held.status, held.error = shown.error.status or 200, shown.error.code
    return held


def wrong(recorded: corpus.Recorded, name: str, shown: Shown) -> str:
    if ODD in recorded.file and shown.error is not None:
        return "" if shown.error.name == "IndexError" else str(shown.error)
    held = held_of(recorded, shown)
    if held.error is not None and held.status == 200:  # what was open when it broke is in no item
        return "" if recorded.outcome not in ("ok", "ok_tool_calls") else f"error {held.error}"
    return difference(recorded, DIALECTS[name], held)


@pytest.mark.parametrize(
    ("driver", "name", "part"),
    [
        (DRIVER, "responses", 1),
        (DRIVER, "responses-whole", 2),
        (LANGCHAIN, "responses", 0),
    ],
)
async def test_every_recorded_stream_is_read_by_the_sdk(
    driver: str, name: str, part: int, pytestconfig: pytest.Config
) -> None:
    need(driver)
    numbers = corpus.share(len(RECORDED), part)
    more: dict[str, Any] = {"whole": True} if name == "responses-whole" else {}
    async with (
        RawServer(Replaying(CUTS["random"])) as provider,
        gateway(configuration(provider.url, numbers)) as running,
    ):
        asks = [
            Ask(str(number), f"{running.url}/v1", KEY, {"model": f"f{number}", "input": "?", **more})
            for number in numbers
        ]
        shown = await answers(driver, asks)
    failed = {
        RECORDED[number].file: found
        for number in numbers
        if (found := wrong(RECORDED[number], name, shown[str(number)]))
    }
    report(pytestconfig, f"{driver}, {name}: {len(numbers) - len(failed)} / {len(numbers)}")
    assert failed == {}
