"""Responses that are kept for their callers, and the references of requests to them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

Item = dict[str, Any]


class KeptResponse(msgspec.Struct, frozen=True):
    """An answer, and the request that it answers.

    `input`: a JSON list with the items of the request alone; everything before them is in the response
    `previous` ("": nothing). `response`: the Response object. `items`: the ids of its output. `created`:
    seconds since the epoch.
    """

    id: str
    previous: str
    created: float
    input: bytes
    response: bytes
    items: tuple[str, ...] = ()


class Keep(msgspec.Struct, eq=False):
    """A request's references to kept responses, and whether its answer is to be kept.

    `previous`: the id of the response that it follows. `references`: ids of items that it names. `items`: its
    own items. `completed` makes a ChatRequest out of the items before it and those that it names. `wanted`:
    the caller wants its answer kept. `kept`: it will be, so the encoder has to leave the finished Response in
    `response`.
    """

    items: Sequence[Any]
    completed: Callable[[Sequence[Item], Mapping[str, Item]], Any]
    previous: str = ""
    references: tuple[str, ...] = ()
    wanted: bool = True
    kept: bool = False
    response: Item | None = None

    __repr__ = object.__repr__  # it holds the model's text
