"""Requests other than chats: most are sent to an upstream in one piece, and answered in one."""

from collections.abc import Iterator
from typing import ClassVar, Protocol

from sluice.model.chat import ChatRequest


class OperationRequest(ChatRequest, kw_only=True):
    """A call of an operation other than chat.

    Most have no messages: `wire` and `body` are sent to the upstream, with its model's name. `operation`: the
    name, a label of metrics ("embeddings"). `tokens`: the estimate for all of its input; `longest`: that for
    the longest of its inputs, which has to fit into the model's context. `otherwise`: the answer if no target
    of the alias carries the operation; b"": the request is refused then. `counted`: the chat whose tokens are
    to be counted ("count_tokens").
    """

    operation: str
    tokens: int
    longest: int
    otherwise: bytes = b""
    counted: ChatRequest | None = None

    generates: ClassVar[bool] = False

    def estimated_tokens(self) -> int:
        return self.tokens


class GeneratingRequest(OperationRequest, kw_only=True):
    """A request whose answer has tokens of its own, and may be streamed ("completions"). It also has
    messages: if no target of the alias carries the operation, it is sent as a chat."""

    generates: ClassVar[bool] = True


class BytesRequest(OperationRequest, kw_only=True):
    """A request whose answer is bytes of a `media_type`, which are passed on as they come ("speech")."""

    media_type: str

    resumes: ClassVar[bool] = False


class StoredForm(Protocol):
    """A form that is not in memory. `first`: the position of its first boundary."""

    first: int

    def __len__(self) -> int: ...

    def between(self, start: int, end: int) -> Iterator[bytes]:
        """Yields the bytes of the body from `start` to `end`, a piece at a time."""
        ...


class FormRequest(BytesRequest, kw_only=True):
    """A request that is a form: `body`, or `stored` if that is too large; `form` is its Content-Type. `at`:
    the position of the model's name in it; None: it has none."""

    form: str
    at: tuple[int, int] | None
    stored: StoredForm | None = None
