"""The fields of a client dialect's JSON object.

Features and models' rules use the names of OpenAI's Chat Completions; a frontend states here how its dialect
differs.
"""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec


class DialectFields(msgspec.Struct, frozen=True):
    """The fields of a request's `wire` whose names differ from Chat Completions'.

    as_named  no field differs: the dialect is Chat Completions, whose messages and parts are where the vocabulary has them
    features  fields that the vocabulary lacks, and their features (`sluice.model.features`)
    inner     the same for fields within other objects
    shown     the name of a feature's field in errors
    written   where the fields are that rules concern, "outer.name" for one in another object; "" for a field that is in
              several places, so that a rule for it has the request written anew
    effort    where an effort of reasoning alone is written; "" if it cannot be
    unlike    fields with another meaning, to which rules do not apply
    unsealed  returns the object without earlier reasoning that a provider has sealed, unchanged if there is none; None: the
              dialect has no such reasoning
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
"""For a dialect without an object to pass on, or one that does not describe its fields."""
