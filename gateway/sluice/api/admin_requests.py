"""Requests and replies of the admin API's resources, as values without sockets."""

import math
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any

import msgspec

from sluice.api.bodies import SMALL
from sluice.errors import BadRequest
from sluice.frontends import Reply

_json = msgspec.json.Encoder().encode


class AdminRequest(msgspec.Struct, frozen=True):
    """`parameters`: those of the path; `body`: {} if there is none. `until`: when the operator's session
    ends, in seconds since the epoch."""

    id: str
    parameters: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: dict[str, Any]
    until: float = math.inf

    @property
    def limit(self) -> int:
        """The number of list entries requested (`limit`). Raises BadRequest."""
        text = self.query.get("limit", "100")
        if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= 200:
            raise BadRequest("limit must be a whole number from 1 to 200", param="limit")
        return int(text)

    def only(self, *names: str) -> None:
        """Raises BadRequest if the query has any other parameter: where one is misspelt, more would be deleted or
        exported than was meant."""
        for name in self.query:
            if name not in names:
                shown = name if len(name) <= 64 else "of the query"
                raise BadRequest(f"Unknown parameter {shown}: there are {', '.join(names)}", param=shown)

    @property
    def after(self) -> str:
        """The entry after which the list continues (`after`)."""
        return self.query.get("after", "")


class Streamed(msgspec.Struct, frozen=True, eq=False):
    """A response of any length. The head is sent only when the first chunk is there, so that an error before
    it can still be a status. `patience`: seconds after which a client that reads nothing is cut off.
    """

    content_type: str
    chunks: AsyncGenerator[bytes, None]
    patience: float | None = None


Answer = Callable[[AdminRequest], Awaitable[Reply | Streamed]]
"""Answers a request. Raises GatewayError."""


class AdminRoute(msgspec.Struct, frozen=True):
    """`most`: bytes of a body that are read."""

    method: str
    path: str
    answer: Answer
    most: int = SMALL


def reply(value: object, status: int = 200) -> Reply:
    return Reply(_json(value), status)
