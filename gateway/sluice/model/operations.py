"""Requests that are no chat: what an upstream is asked for in one piece, and answers in one."""

from collections.abc import Iterator
from typing import ClassVar, Protocol

from sluice.model.chat import ChatRequest


class OperationRequest(ChatRequest, kw_only=True):
    """A call of another operation than chat. Most have no messages: `wire` and `body` go to the upstream,
    with its model's name.

    `operation` is its name, a label of metrics ("embeddings"). `tokens`: of all its input, about; `longest`:
    of the longest of its inputs, which has to fit into the model's context. `otherwise`: the answer where no
    target of the alias carries the operation; b"": such a request is refused. `counted`: the chat whose
    tokens are to be counted ("count_tokens").
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
    """One whose answer has tokens of its own, and may be streamed ("completions").

    It has messages, too: where no target of the alias carries the operation, it is asked for as a chat.
    """

    generates: ClassVar[bool] = True


class BytesRequest(OperationRequest, kw_only=True):
    """One whose answer is bytes of a `media_type`, passed on as they come ("speech")."""

    media_type: str

    resumes: ClassVar[bool] = False


class StoredForm(Protocol):
    """A form that is not in memory. `first`: where its first boundary stands."""

    first: int

    def __len__(self) -> int: ...

    def between(self, start: int, end: int) -> Iterator[bytes]:
        """Yields the body's bytes from `start` to `end`, a piece at a time."""
        ...


class FormRequest(BytesRequest, kw_only=True):
    """One that is a form: `body`, or where that is too large `stored`, whose Content-Type is `form`.

    `at`: where in it the model's name stands; None: nowhere.
    """

    form: str
    at: tuple[int, int] | None
    stored: StoredForm | None = None
