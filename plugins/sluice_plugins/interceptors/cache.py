"""An exact-match cache for one alias in one process: a chat that is equal to an earlier one is answered from
memory.

Only the text of an answer is stored, so answers with tool calls or reasoning are not. Only chats that a text
can answer are looked up: chats with request fields that this file does not know go to the targets, and so do
chats with tools or a session unless the options allow them. Streamed and whole answers share entries.
"""

import hashlib
import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from sluice.config.types import Bytes, Seconds
from sluice.model.chat import ChatRequest
from sluice.model.events import Finished, Started, TextDelta, Usage
from sluice.proxy.interceptors import Interceptor, Next
from sluice.proxy.run import CallRun

HEADER = "x-sluice-cache"
MAX_REQUEST_BYTES = 256 << 10
"""The largest request body, in bytes, that is looked up: hashing a larger one would block the event loop for
too long."""
OVERHEAD = 600
"""Bytes of memory that an entry takes beside its text, roughly."""
IRRELEVANT = frozenset({"stream", "stream_options"})
"""Request fields that do not affect the answer."""
KNOWN = IRRELEVANT | {
    "model", "messages", "system", "instructions", "input", "user", "metadata", "service_tier", "safety_identifier",
    "prompt_cache_key", "temperature", "top_p", "top_k", "seed", "stop", "stop_sequences", "max_tokens",
    "max_completion_tokens", "max_output_tokens", "frequency_penalty", "presence_penalty", "logit_bias", "response_format",
    "reasoning_effort", "reasoning", "thinking", "verbosity", "store", "n", "tools", "tool_choice", "parallel_tool_calls",
}  # fmt: skip
"""Fields of OpenAI's and Anthropic's requests that a text can answer; fields that ask for more (logprobs, audio)
are not among them."""


class Cache(msgspec.Struct, frozen=True):
    """Answers chats that are equal to an earlier one from memory.

    `scope`: whose calls share answers: those of one key, those of one tenant, or all calls of the alias.
    """

    ttl: Seconds = Seconds(300)  # how long an answer is used again
    size: Bytes = Bytes(
        64 << 20
    )  # memory for answers, in each process; the least recently used one goes first
    answer: Bytes = Bytes(256 << 10)  # the longest answer that is stored
    scope: Literal["key", "tenant", "alias"] = "tenant"  # whose calls share answers
    tools: bool = False  # whether chats with tools are cached, too, where the answer calls none
    sessions: bool = False  # whether turns of sessions are cached, too, where the whole conversation is equal

    def __post_init__(self) -> None:
        for name in ("ttl", "size", "answer"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: must be above 0")

    def interceptor(self) -> Interceptor:
        return ResponseCache(self, time.monotonic)


class CachedAnswer(msgspec.Struct, frozen=True, gc=False):
    """A stored answer. `until`: when it expires, on the cache's clock; `size` in bytes."""

    text: str
    model: str
    usage: Usage | None
    until: float
    size: int


class Answers:
    """Answers by key, ordered by their last use, the oldest first. `size` is the most bytes of all
    together."""

    def __init__(self, size: int, clock: Callable[[], float]) -> None:
        self._size = size
        self._clock = clock
        self._answers: dict[bytes, CachedAnswer] = {}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: bytes) -> CachedAnswer | None:
        answer = self._pop(key)
        if answer is None or answer.until <= self._clock():
            return None
        self._put(key, answer)
        return answer

    def keep(self, key: bytes, answer: CachedAnswer) -> None:
        """Stores an answer, unless it is larger than the whole cache may be."""
        self._pop(key)
        if answer.size > self._size:
            return
        while self.bytes + answer.size > self._size:
            self._pop(next(iter(self._answers)))
        self._put(key, answer)

    def _put(self, key: bytes, answer: CachedAnswer) -> None:
        self._answers[key] = answer
        self.bytes += answer.size

    def _pop(self, key: bytes) -> CachedAnswer | None:
        answer = self._answers.pop(key, None)
        if answer is not None:
            self.bytes -= answer.size
        return answer


class ResponseCache:
    """The interceptor. A reload that does not change its options keeps it and its answers."""

    def __init__(self, options: Cache, clock: Callable[[], float]) -> None:
        self._options = options
        self._clock = clock
        self.answers = Answers(int(options.size), clock)

    async def __call__(self, run: CallRun, next: Next) -> None:
        key = self.key_of(run)
        if key is None:
            await next(run)
            return
        call = run.call
        answer = self.answers.get(key)
        if answer is not None:
            call.headers = [*call.headers, (HEADER, "hit")]
            run.reply(
                [Started(model=answer.model), TextDelta(answer.text), Finished("stop", usage=answer.usage)]
            )
            return
        call.headers = [*call.headers, (HEADER, "miss")]
        await next(run)
        self._keep(key, run)

    def key_of(self, run: CallRun) -> bytes | None:
        """Returns the cache key of the call; None if the call must not be answered from the cache."""
        call = run.call
        chat = call.chat
        if not self._takes(chat) or call.size > MAX_REQUEST_BYTES:
            return None
        principal = call.principal
        owner = {"key": principal.bucket, "tenant": principal.tenant, "alias": ""}[self._options.scope]
        try:
            parts = [owner, chat.model, chat.profile, dict(call.forward), asks_of(chat)]
            text = msgspec.json.encode(parts, order="deterministic")
        except ValueError:  # half a surrogate pair
            return None
        return hashlib.blake2b(text, digest_size=16).digest()

    def _takes(self, chat: ChatRequest) -> bool:
        options, wire = self._options, chat.wire
        return (
            chat.n == 1
            and chat.keep is None
            and not chat.dialect_only
            and not chat.own
            and (chat.session is None or options.sessions)
            and (not chat.tools or options.tools)
            and (wire is None or (wire.keys() <= KNOWN and not wire.get("store")))
        )

    def _keep(self, key: bytes, run: CallRun) -> None:
        """Stores the answer that the client got, if it is complete and has nothing but text."""
        winner = run.winner
        if winner is None or run.call.end != "done":
            return
        relay = winner.relay
        text, finished = relay.text, relay.finished
        if finished is None or finished.reason != "stop" or relay.recovered or relay.characters != len(text):
            return
        size = len(text.encode("utf-8", "surrogatepass")) + OVERHEAD
        if size - OVERHEAD <= self._options.answer:
            until = self._clock() + self._options.ttl
            self.answers.keep(key, CachedAnswer(text, relay.model, relay.usage, until, size))


def asks_of(chat: ChatRequest) -> Any:
    """Returns everything in a chat that its answer depends on, ready for JSON: the caller's own fields, or
    the fields of the parsed request if there are none."""
    if chat.wire is not None:
        return [chat.dialect, {name: value for name, value in chat.wire.items() if name not in IRRELEVANT}]
    return [
        chat.messages, chat.sampling, chat.reasoning, chat.response_format, chat.tools, chat.tool_choice,
        chat.parallel_tool_calls, chat.user,
    ]  # fmt: skip
