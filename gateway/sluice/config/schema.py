"""Describes the configuration's types as JSON Schema (draft 2020-12), for editors that complete and check
YAML. Written by `sluice config schema`.

It follows the types; `sluice check` checks references between sections. An upstream's options are those of
the backend or vendor that it names, for every backend given here, and any for others. The same holds for a
credential's kind, and for the name of an interceptor or a stage.
"""

import ast
from collections.abc import Mapping
from functools import cache
from inspect import getsource
from io import StringIO
from textwrap import dedent
from tokenize import COMMENT, generate_tokens
from typing import Any

import msgspec
from msgspec import inspect

from sluice.config.types import COMPUTED, Config, Credential, Interceptor, Stage, Upstream
from sluice.config.units import Bytes, Rate, Seconds, Secret
from sluice.config.validation import type_info
from sluice.config.vendors import bundled_vendors

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_REFERENCE = r"\$\{[^}]*\}"  # ${VAR} in place of any value that is not text

Schema = dict[str, Any]


Structs = Mapping[str, type[msgspec.Struct]]


def json_schema(
    backends: Structs | None = None,
    kinds: Structs | None = None,
    *,
    interceptors: Structs | None = None,
    stages: Structs | None = None,
) -> Schema:
    """Returns the schema of the whole file. `backends` by the name that an upstream gives; all others by
    theirs."""
    schemas = _Schemas(
        {
            Upstream: ("backend", backends or {}),
            Credential: ("kind", kinds or {}),
            Interceptor: ("name", interceptors or {}),
            Stage: ("name", stages or {}),
        }
    )
    root = schemas.of(type_info(Config))
    return {
        "$schema": DRAFT,
        "title": "Sluice configuration",
        **root,
        "$defs": dict(sorted(schemas.defs.items())),
    }


class _Schemas:
    def __init__(self, plugged: Mapping[type, tuple[str, Structs]]) -> None:
        """`plugged`: sections with options of a plugin, by the key that names the plugin."""
        self.defs: dict[str, Schema] = {}
        self._plugged = plugged

    def of(self, kind: inspect.Type) -> Schema:
        match kind:
            case inspect.Metadata():
                return {**self.of(kind.type), **(kind.extra_json_schema or {})}
            case inspect.UnionType():
                return {"anyOf": [self.of(member) for member in kind.types]}
            case inspect.StructType():
                return self._reference(kind)
            case inspect.DictType():
                return _without_none(
                    type="object",
                    propertyNames=self.of(kind.key_type),
                    additionalProperties=self.of(kind.value_type),
                )
            case inspect.VarTupleType() | inspect.ListType() | inspect.FrozenSetType():
                return {"type": "array", "items": self.of(kind.item_type)}
        return _scalar(kind)

    def _reference(self, kind: inspect.StructType) -> Schema:
        name = kind.cls.__name__
        if name not in self.defs:
            self.defs[name] = {}  # reserved, in case the type contains itself
            self.defs[name] = self._open(kind) if kind.cls in self._plugged else self._section(kind)
        return {"$ref": f"#/$defs/{name}"}

    def _section(self, kind: inspect.StructType) -> Schema:
        comments = comments_of(kind.cls)
        return _without_none(
            type="object",
            description=_description(kind.cls),
            properties={
                field.encode_name: self._property(field, comments.get(field.name)) for field in kind.fields
            },
            required=[field.encode_name for field in kind.fields if field.required] or None,
            additionalProperties=False,
        )

    def _property(self, field: inspect.Field, comment: str | None) -> Schema:
        schema = self.of(field.type)
        if comment is not None:
            more = schema.get("description", "")
            schema = {**schema, "description": f"{_sentence(comment)}. {more}".rstrip()}
        match field.default:
            case None | bool() | int() | float() | str() if not isinstance(field.default, Secret):
                return {**schema, "default": _builtin(field.default)}
        return schema

    def _open(self, kind: inspect.StructType) -> Schema:
        key, plugins = self._plugged[kind.cls]
        section = self._section(kind)
        for name in COMPUTED & section["properties"].keys():
            del section["properties"][name]
        section["additionalProperties"] = True
        if plugins:
            section["properties"][key] |= {"examples": [*sorted(plugins), *sorted(_vendors(key, plugins))]}
            section["allOf"] = [self._options(key, name, plugins, section) for name in sorted(plugins)]
        return section

    def _options(
        self, key: str, name: str, plugins: Mapping[str, type[msgspec.Struct]], open_: Schema
    ) -> Schema:
        info = type_info(plugins[name])
        assert isinstance(info, inspect.StructType)
        own = {key: True for key in open_["properties"]}
        options = self._section(info)
        options["properties"] = {**options["properties"], **own}
        vendors = sorted(vendor for vendor, dialect in _vendors(key, plugins).items() if dialect == name)
        named: Schema = {"properties": {key: {"enum": [name, *vendors]} if vendors else {"const": name}}}
        if open_["properties"][key].get("default") != name:
            named["required"] = [key]
        return {"if": named, "then": options}


def _vendors(key: str, plugins: Mapping[str, type[msgspec.Struct]]) -> dict[str, str]:
    """Returns the backend of each vendor that is not itself a backend. `key` names the plugin: vendors are
    named in the same place as backends."""
    known = bundled_vendors().items() if key == "backend" else ()
    return {
        name: vendor.backend for name, vendor in known if vendor.backend in plugins and name not in plugins
    }


def comments_of(cls: type) -> dict[str, str]:
    """Reads the comments behind a Struct's fields, by field: they are the options' descriptions."""
    found: dict[str, str] = {}
    for part in reversed(cls.__mro__):
        if part is not msgspec.Struct and issubclass(part, msgspec.Struct):
            found |= _own_comments(part)
    return found


@cache
def _own_comments(cls: type) -> dict[str, str]:
    """Reads the comments of the fields that the class adds to its bases'."""
    source = dedent(getsource(cls))
    comments = {
        token.start[0]: token.string.removeprefix("#").strip()
        for token in generate_tokens(StringIO(source).readline)
        if token.type == COMMENT and token.line.strip() != token.string
    }
    found: dict[str, str] = {}
    (struct,) = ast.parse(source).body
    for field in struct.body if isinstance(struct, ast.ClassDef) else ():
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            # the formatter wraps long ones
            lines = range(field.lineno, (field.end_lineno or field.lineno) + 1)
            if written := " ".join([comments[line] for line in lines if line in comments]):
                found[field.target.id] = written
    return found


def _scalar(kind: inspect.Type) -> Schema:
    match kind:
        case inspect.StrType():
            pattern = kind.pattern.replace(r"\Z", "$") if kind.pattern else None
            return _without_none(
                type="string", pattern=pattern, minLength=kind.min_length, maxLength=kind.max_length
            )
        case inspect.BoolType():
            return _or_reference(type="boolean")
        case inspect.IntType():
            return _or_reference(type="integer", **_bounds(kind))
        case inspect.FloatType():
            return _or_reference(type="number", **_bounds(kind))
        case inspect.NoneType():
            return {"type": "null"}
        case inspect.LiteralType():
            return {"enum": sorted(kind.values, key=str)}
        case inspect.CustomType(cls=cls) if issubclass(cls, Seconds | Bytes | Rate):
            base = "integer" if issubclass(cls, Bytes) else "number"
            pattern = f"^(?:{cls.pattern}|{_REFERENCE})$"
            limit: Schema = {"exclusiveMinimum": 0} if issubclass(cls, Rate) else {"minimum": 0}
            return {"type": [base, "string"], **limit, "pattern": pattern, "description": _description(cls)}
        case inspect.CustomType(cls=cls) if issubclass(cls, Secret):
            return {
                "type": "string",
                "minLength": 1,
                "description": "A secret: ${VAR} or ${file:/path}. It is never shown.",
            }
    return {}


def _bounds(kind: inspect.IntType | inspect.FloatType) -> Schema:
    return _without_none(minimum=kind.ge, exclusiveMinimum=kind.gt, maximum=kind.le, exclusiveMaximum=kind.lt)


def _or_reference(**schema: Any) -> Schema:
    return {"anyOf": [schema, {"type": "string", "pattern": f"^{_REFERENCE}$"}]}


def _sentence(comment: str) -> str:
    """Returns the comment with a capital letter, unless it begins with the name or form of a value
    ("max_tokens", "sha256:…")."""
    first = comment.split(" ", 1)[0]
    return (
        f"{comment[0].upper()}{comment[1:]}"
        if first.rstrip(",:;").translate({39: None, 45: None}).isalpha()
        else comment
    )


def _description(cls: type) -> str | None:
    text = cls.__dict__.get("__doc__")
    return " ".join(text.split()) if text else None


def _builtin(default: Any) -> Any:
    """Returns defaults of the configuration's own scalar types, without their class."""
    match default:
        case None | bool():
            return default
        case float():
            return int(default) if default.is_integer() else float(default)
        case int():
            return int(default)
    return default


def _without_none(**schema: Any) -> Schema:
    return {name: value for name, value in schema.items() if value is not None}
