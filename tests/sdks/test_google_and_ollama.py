"""Google's SDK and Ollama's show the same of their vendors' recorded streams through the gateway as when they
ask the provider directly; where the provider breaks an answer off or refuses it, an error. The counts passed
/ all are written to the terminal.
"""

import pytest

from tests import corpus
from tests.e2e.gateways import KEY, gateway
from tests.e2e.test_corpus import CUTS, RECORDED, Replaying, configuration, report
from tests.fakes.rawserver import RawServer
from tests.sdks.running import Ask, Shown, answers, need

pytestmark = [pytest.mark.timeout(240), pytest.mark.skipif(not RECORDED, reason=corpus.ABSENT)]

BROKEN = (
    "http_error",
    "stream_error",
    "prompt_blocked",
    "malformed_but_parsable",
    "ended_without_finish_reason",
)
FIELDS = ("text", "reasoning", "calls", "finish", "usage")


@pytest.mark.parametrize(("sdk", "protocol"), [("py_genai", "gemini"), ("py_ollama", "ollama")])
async def test_recorded_streams_show_the_same_as_directly(
    sdk: str, protocol: str, pytestconfig: pytest.Config
) -> None:
    need(sdk)
    numbers = [n for n, recorded in enumerate(RECORDED) if recorded.protocol == protocol]
    async with (
        RawServer(Replaying(CUTS["whole"])) as provider,
        gateway(configuration(provider.url, numbers)) as running,
    ):
        directly = [Ask(f"d{n}", f"{provider.url}/{n}", "k", {"model": "m"}) for n in numbers]
        through = [Ask(f"f{n}", running.url, KEY, {"model": f"f{n}"}) for n in numbers]
        shown = await answers(sdk, [*directly, *through])
    wrong = {
        RECORDED[n].file: found for n in numbers if (found := difference(n, shown[f"d{n}"], shown[f"f{n}"]))
    }
    report(
        pytestconfig, f"{sdk}, its vendor's recorded streams: {len(numbers) - len(wrong)} / {len(numbers)}"
    )
    assert wrong == {}


def difference(number: int, directly: Shown, through: Shown) -> str:
    recorded = RECORDED[number]
    if recorded.outcome in BROKEN:
        return "" if through.error is not None else f"no error: {through}"
    if (
        directly.error is not None
    ):  # enumerations as numbers, which the SDK cannot read: passed on as they are, or put right
        right = (through.text, through.reasoning) == (
            recorded.expected.text,
            recorded.expected.reasoning or "",
        )
        return "" if right or through.error is not None else f"{through}, directly {directly.error}"
    found = [name for name in FIELDS if getattr(directly, name) != getattr(through, name)]
    return f"{found}: {through}, directly {directly}" if found or through.error is not None else ""
