"""The fields of a client dialect's JSON object. Features and models' rules are named as in OpenAI's Chat
Completions; a frontend says here where its dialect differs from that.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec


class DialectFields(msgspec.Struct, frozen=True):
    """The fields of a request's `wire` that have other names than in Chat Completions.

    `as_named`: nothing: it is of that dialect itself, whose messages and parts stand where the vocabulary has
    them. `features`: fields that the vocabulary has no place for, and their features
    (`sluice.model.features`); `inner`: those within other objects. `shown`: what a field of a feature is
    called in errors. `written`: where the fields that rules concern stand, "outer.name" for one in another
    object; "" for one that stands in several, so that a rule for it has the request written anew. `effort`:
    where an effort of reasoning alone is written; "" where it cannot be. `unlike`: fields with another
    meaning, to which rules do not apply. `unsealed`: returns the object without earlier reasoning that a
    provider has sealed, unchanged where there is none; None: the dialect has no such.
    """

    as_named: bool = False
    features: Mapping[str, str] = {}
    inner: Mapping[str, Mapping[str, str]] = {}
    shown: Mapping[str, str] = {}
    written: Mapping[str, str] = {}
    effort: str = ""
    unlike: frozenset[str] = frozenset()
    unsealed: Callable[[dict[str, Any]], dict[str, Any]] | None = None


UNKNOWN_FIELDS = DialectFields()
"""Those of a dialect that has no object to pass on, or says nothing of it."""
