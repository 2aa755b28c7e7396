"""Responses that are kept for their callers, and what a request has to do with them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

Item = dict[str, Any]


class KeptResponse(msgspec.Struct, frozen=True):
    """An answer, and what it answered. `input` is a JSON list: the items of the request alone; what was
    before them is the response `previous` ("": nothing). `response` is the Response object, `items` the ids
    of its output. `created` in seconds since the epoch.
    """

    id: str
    previous: str
    created: float
    input: bytes
    response: bytes
    items: tuple[str, ...] = ()


class Keep(msgspec.Struct, eq=False):
    """A request's references to kept responses, and whether its answer is to be kept.

    `previous` is the id of the response that it follows, `references` are ids of items that it names. `items`
    are its own. `completed` makes of the items before it, and of those that it names, the request that is
    meant (a ChatRequest). `wanted`: the caller wants its answer kept. `kept`: it will be, so the encoder is
    to leave the finished Response in `response`.
    """

    items: Sequence[Any]
    completed: Callable[[Sequence[Item], Mapping[str, Item]], Any]
    previous: str = ""
    references: tuple[str, ...] = ()
    wanted: bool = True
    kept: bool = False
    response: Item | None = None

    __repr__ = object.__repr__  # it holds the model's text
