"""The configuration as operators may see it: everything but the defaults, with every secret as "***"."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from sluice.config.types import Config, Upstream
from sluice.config.units import Bytes, Rate, Seconds, Secret, in_full

MASK = "***"
SECRET_NAME = re.compile(
    r"(?i)(?:\b|_|-)(?:key|token|secret|password|passphrase|authorization|cookie|credentials?)\Z"
)
"""Endings of the names of options and fields that hold a secret."""
_USERINFO = re.compile(r"(?i)\b([a-z][a-z0-9+.-]{0,30}://)[^\s/@]{1,300}@")
_CREDENTIAL_PARAMETER = re.compile(
    r"(?i)([?&](?:[\w-]*(?:key|token|secret|password|sig|signature))=)[^&#\s]+"
)


def shown(config: Config) -> dict[str, Any]:
    """Returns values of JSON and YAML, in the syntax of the configuration. Defaults are left out."""
    found = _struct(config)
    return found if isinstance(found, dict) else {}


def _struct(value: msgspec.Struct) -> Any:
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(value):
        given = getattr(value, field.name)
        if field.default is not msgspec.NODEFAULT and given == field.default:
            continue
        if field.default_factory is not msgspec.NODEFAULT and given == field.default_factory():
            continue
        if field.name == "options" and isinstance(given, Mapping):
            found |= {name: _option(name, option) for name, option in given.items() if option is not None}
        elif field.name == "digest" and isinstance(given, str):
            found[field.encode_name] = f"{given[:15]}…"
        elif not (isinstance(value, Upstream) and field.name == "vendor"):
            found[field.encode_name] = _value(given)
    return found


def _option(name: str, value: Any) -> Any:
    """Returns one of a plugin's options, whose type may not show that it is a secret."""
    if isinstance(value, str) and SECRET_NAME.search(name):
        return MASK
    return _value(value, headers=name.lower().endswith("headers"))


def _value(value: Any, *, headers: bool = False) -> Any:
    match value:
        case Secret():
            return MASK
        case Rate():
            return value.text
        case Seconds():
            return f"{in_full(value)}s"
        case Bytes():
            return int(value)
        case str():
            return _CREDENTIAL_PARAMETER.sub(rf"\1{MASK}", _USERINFO.sub(rf"\1{MASK}@", value))
        case msgspec.Struct():
            return _struct(value)
        case Mapping():
            return {
                str(name): MASK if headers and inner else _option(str(name), inner)
                for name, inner in value.items()
            }
        case list() | tuple() | set() | frozenset():
            return [_value(inner) for inner in value]
        case None | bool() | int() | float():
            return value
        case _:
            return str(value)
