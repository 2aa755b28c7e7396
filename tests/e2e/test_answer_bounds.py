"""Answers that grow without end before they can be said: each is given up at its bound, and another target
answers."""

from dataclasses import dataclass

from tests.e2e.answers import MODES, Answer
from tests.e2e.gateways import gateway
from tests.e2e.test_faults import DIALECT, alias, answers, configuration, named, settled
from tests.fakes.dialects import ANSWER, TOKENS
from tests.fakes.faulty import PIECE, Provider, Turn, healthy

SMALL = ", max_before_content: 256KiB, max_answer: 1MiB"


@dataclass
class Endless:
    """Says `count` tokens, and then frames without a word for as long as it is listened to."""

    count: int = 0

    async def __call__(self, turn: Turn) -> None:
        turn.begin(self.count)
        frame = turn.dialect.token("")
        while not turn.peer.closed.is_set():
            turn.write(frame * (PIECE // len(frame)))
            await turn.peer.drain()


@DIALECT
async def test_frames_before_any_content_are_given_up_at_their_bound(dialect: str) -> None:
    async with Provider(Endless()) as faulty, Provider(healthy) as well:
        aliases = [alias(named("pair", mode), "faulty", "well") for mode in MODES]
        config = configuration(dialect, {"faulty": faulty.url, "well": well.url}, aliases, options=SMALL)
        async with gateway(config) as g:
            assert await answers(g, "pair") == dict.fromkeys(MODES, Answer(200, ANSWER))
            record = await settled(g)
            for mode in MODES:
                assert record.attempts(named("pair", mode)) == ["faulty garbled", "well ok"]


@DIALECT
async def test_a_whole_answer_is_given_up_at_its_bound(dialect: str) -> None:
    modes = [mode for mode in MODES if mode.endswith("whole")]
    async with Provider(Endless(len(TOKENS))) as faulty, Provider(healthy) as well:
        aliases = [alias(named("pair", mode), "faulty", "well") for mode in modes]
        config = configuration(dialect, {"faulty": faulty.url, "well": well.url}, aliases, options=SMALL)
        async with gateway(config) as g:
            assert await answers(g, "pair", modes) == dict.fromkeys(modes, Answer(200, ANSWER))
            record = await settled(g)
            for mode in modes:
                assert record.attempts(named("pair", mode)) == ["faulty garbled", "well ok"]


async def test_a_document_is_given_up_at_the_bound_of_an_answer() -> None:
    mode = "openai whole"

    async def document(turn: Turn) -> None:
        turn.head()
        turn.write(b'{"choices":[{"message":{"content":"')
        while not turn.peer.closed.is_set():
            turn.write(b"x" * PIECE)
            await turn.peer.drain()

    async with Provider(document) as faulty, Provider(healthy) as well:
        urls = {"faulty": faulty.url, "well": well.url}
        aliases = [alias(named("pair", mode), "faulty", "well")]
        async with gateway(configuration("openai", urls, aliases, options=SMALL)) as g:
            assert await answers(g, "pair", [mode]) == {mode: Answer(200, ANSWER)}
            record = await settled(g)
            assert record.attempts(named("pair", mode)) == ["faulty garbled", "well ok"]
