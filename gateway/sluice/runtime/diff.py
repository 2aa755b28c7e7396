"""Compares two configurations: what a reload would change.

Values are shown only if they cannot hold a secret: numbers and booleans everywhere, texts of aliases. Of
everything else only the name is shown.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from sluice.config.types import Config
from sluice.runtime.restart import FIXED, FIXED_AT_TOP, needs_restart

Sign = Literal["+", "-", "~", "!"]
KINDS = {"upstreams": "upstream", "aliases": "alias", "keys": "key", "jwt": "issuer", "tenants": "tenant"}
"""Sections of named things, and the word for one of them."""


class Difference(msgspec.Struct, frozen=True):
    """`sign`: added, removed, changed, or needs a restart. `details`: the changed fields."""

    sign: Sign
    what: str
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.sign} {self.what}{': ' if self.details else ''}{', '.join(self.details)}"


def differences(old: Config, new: Config) -> list[Difference]:
    """Returns all differences in the order of sections; those that need a restart last."""
    found: list[Difference] = []
    for section, kind in KINDS.items():
        found += _named(
            kind, _by_name(getattr(old, section)), _by_name(getattr(new, section)), texts=section == "aliases"
        )
    for section in Config.__struct_fields__:
        if section not in KINDS and section not in FIXED_AT_TOP:
            found += _of_section(section, getattr(old, section), getattr(new, section))
    return found + [
        Difference("!", option, ("only a restart can change it",)) for option in needs_restart(old, new)
    ]


def _named(kind: str, old: Mapping[str, Any], new: Mapping[str, Any], *, texts: bool) -> Iterator[Difference]:
    for name in old:
        if name not in new:
            yield Difference("-", f"{kind} {name}")
    for name, value in new.items():
        if name not in old:
            yield Difference("+", f"{kind} {name}")
        elif old[name] != value:
            yield Difference("~", f"{kind} {name}", tuple(_changes(old[name], value, texts=texts)))


def _of_section(section: str, old: Any, new: Any) -> Iterator[Difference]:
    if old == new:
        return
    if not isinstance(old, msgspec.Struct) or not isinstance(new, msgspec.Struct):
        yield Difference("+" if old is None else "-" if new is None else "~", section)
        return
    fixed = FIXED.get(section, ())
    changes = tuple(_changes(old, new, texts=False, without=fixed))
    if changes:
        yield Difference("~", section, changes)


def _changes(
    old: msgspec.Struct, new: msgspec.Struct, *, texts: bool, without: tuple[str, ...] = ()
) -> Iterator[str]:
    for field in new.__struct_fields__:
        before: Any = getattr(old, field, None)
        after: Any = getattr(new, field)
        if field in without or before == after:
            continue
        if field == "options":  # the backend's own options, which are written beside an upstream's
            yield from (name for name in {**before, **after} if before.get(name) != after.get(name))
        elif _may_be_shown(before, texts=texts) and _may_be_shown(after, texts=texts):
            yield f"{field} {_shown(before)} -> {_shown(after)}"
        else:
            yield field


def _may_be_shown(value: object, *, texts: bool) -> bool:
    return (
        value is None
        or type(value) in (bool, int, float)
        or isinstance(value, float)
        or (texts and type(value) is str)
    )


def _shown(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _by_name(section: Any) -> Mapping[str, Any]:
    if isinstance(section, Mapping):
        return section
    named: dict[str, Any] = {
        str(getattr(one, "id", None) or getattr(one, "issuer", "")): one for one in section
    }
    return named
