"""Converts a tree of YAML into msgspec Structs by their type annotations, and reports every problem at once.

`msgspec.convert` stops at the first problem and knows no positions; this code uses the same annotations. A
wrong value becomes its default, or INVALID if there is none, so that the conversion (and the checks after it)
can continue. Problems never repeat a value, which may be a secret in the wrong place. Names of keys and
sections are repeated.
"""

import math
import operator
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, cast

import msgspec
from msgspec import inspect

from sluice.config.hints import (
    FLAT_TIER,
    about_keys,
    about_list,
    about_names,
    about_section,
    about_unknown,
    about_value,
    flat_tier,
)
from sluice.config.problems import Path, Report, suggestion
from sluice.config.units import Bytes, Rate, Seconds, Secret
from sluice.config.yamltext import Broken, Mapping, Node, Scalar, Sequence


class _Invalid:
    def __repr__(self) -> str:
        return "INVALID"


MAX_TYPES = 256  # the configuration, and the options of each backend and plugin

INVALID: Any = _Invalid()
"""Stands for a required value that is missing or wrong."""


def holds_invalid(value: object) -> bool:
    """Returns whether a value is INVALID, or contains it: in its list, its mapping or its section."""
    match value:
        case dict():
            return any(map(holds_invalid, value.values()))
        case list() | tuple() | frozenset():
            return any(map(holds_invalid, value))
        case msgspec.Struct():
            return any(holds_invalid(getattr(value, name)) for name in value.__struct_fields__)
        case _:
            return value is INVALID


Special = Callable[["Walk", Mapping, Path], Any]


@lru_cache(MAX_TYPES)
def type_info(kind: Any) -> inspect.Type:
    """Returns the annotations of a type. Cached, because a configuration has some 200 of them and each reload
    needs the same."""
    return inspect.type_info(kind)


def fields_of(struct: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    """Returns the fields of a Struct, with their types."""
    return cast(inspect.StructType, type_info(struct)).fields


class Walk:
    """`special` reads Structs that have further keys beside their own fields. `sections`: each Struct that
    was built, with its path."""

    def __init__(self, report: Report, special: dict[type, Special] | None = None) -> None:
        self.report = report
        self.sections: list[tuple[Path, Any]] = []
        self._special = special or {}

    def value(self, node: Node, kind: inspect.Type, path: Path = ()) -> Any:
        """Returns the value, or INVALID (then a problem has been reported)."""
        self.report.seen(path, node.at)
        if isinstance(node, Broken):
            return INVALID
        match kind:
            case inspect.AnyType():
                return as_builtins(node)
            case inspect.UnionType(types=types):
                return self._union(node, types, path)
            case inspect.StructType():
                return self._struct(node, kind, path)
            case inspect.DictType():
                return self._dict(node, kind, path)
            case inspect.VarTupleType() | inspect.ListType() | inspect.FrozenSetType():
                return self._items(node, kind.item_type, path, _CONTAINERS[type(kind)])
        return self._scalar(node, kind, path)

    def fields(self, node: Mapping, fields: Iterable[inspect.Field], path: Path) -> dict[str, Any]:
        """Returns the values of those `fields` that are given; a missing or wrong one is its default, or
        INVALID."""
        values: dict[str, Any] = {}
        for field in fields:
            if entry := node.entries.get(field.encode_name):
                value = self.value(entry.node, field.type, (*path, field.encode_name))
                if value is INVALID and not field.required:
                    continue
                values[field.name] = value
            elif field.required:
                self.report.problem(path, f'missing key "{field.encode_name}"', node.at)
                values[field.name] = INVALID
        return values

    def unknown(self, node: Mapping, known: Iterable[str], path: Path) -> None:
        names = list(known)
        for key, entry in node.entries.items():
            if key not in names:
                hint = about_unknown(key) or suggestion(key, names) or about_keys(names)
                self.report.problem((*path, key), f'unknown key "{key}"{hint}', entry.at)

    def _struct(self, node: Node, kind: inspect.StructType, path: Path) -> Any:
        if not isinstance(node, Mapping):
            return self._wrong(node, path, about_section(kind.cls))
        if flat_tier(kind.cls, node):
            return self._wrong(node, path, FLAT_TIER)
        if special := self._special.get(kind.cls):
            section = special(self, node, path)
        else:
            self.unknown(node, (field.encode_name for field in kind.fields), path)
            section = kind.cls(**self.fields(node, kind.fields, path))
        self.sections.append((path, section))
        return section

    def _dict(self, node: Node, kind: inspect.DictType, path: Path) -> Any:
        if not isinstance(node, Mapping):
            section = kind.value_type
            return self._wrong(
                node, path, about_names(section.cls if isinstance(section, inspect.StructType) else object)
            )
        values = {}
        for key, entry in node.entries.items():
            name = Scalar(entry.at, key, key, plain=False)
            if self._scalar(name, kind.key_type, (*path, key)) is not INVALID:
                values[key] = self.value(entry.node, kind.value_type, (*path, key))
        return values

    def _items(
        self, node: Node, item: inspect.Type, path: Path, container: Callable[[list[Any]], Any]
    ) -> Any:
        if not isinstance(node, Sequence):
            kinds = item.types if isinstance(item, inspect.UnionType) else (item,)
            kind = next((kind.cls for kind in kinds if isinstance(kind, inspect.StructType)), object)
            return self._wrong(node, path, about_list(node, kind))
        return container([self.value(child, item, (*path, index)) for index, child in enumerate(node.items)])

    def _union(self, node: Node, types: tuple[inspect.Type, ...], path: Path) -> Any:
        others = [kind for kind in types if not isinstance(kind, inspect.NoneType)]
        if len(others) < len(types) and isinstance(node, Scalar) and _absent(node, others):
            return None
        shaped = [kind for kind in others if _shape_fits(node, kind)]
        if len(others) == 1 or len(shaped) == 1:
            return self.value(node, (shaped or others)[0], path)
        for kind in others:
            attempt = Walk(Report(self.report.file), self._special)
            value = attempt.value(node, kind, path)
            if not attempt.report.problems:
                return value
        sections = [kind.cls for kind in others if isinstance(kind, inspect.StructType)]
        if sections:
            return self._wrong(node, path, about_section(sections[0]))
        return self._wrong(node, path, "fits none of the types that this option can have")

    def _scalar(self, node: Node, kind: inspect.Type, path: Path) -> Any:
        if not isinstance(node, Scalar):
            return self._wrong(node, path, about_value(secret=_is_secret(kind)))
        try:
            return scalar(node, kind)
        except ValueError as error:
            return self._wrong(node, path, str(error))

    def _wrong(self, node: Node, path: Path, message: str) -> Any:
        self.report.problem(path, message, node.at)
        return INVALID


def _shape_fits(node: Node, kind: inspect.Type) -> bool:
    """Returns whether a node is of the form of this type: a section, a list or a single value."""
    match node:
        case Mapping():
            return isinstance(kind, inspect.StructType | inspect.DictType)
        case Sequence():
            return isinstance(kind, inspect.VarTupleType | inspect.ListType | inspect.FrozenSetType)
    return not isinstance(
        kind, inspect.StructType | inspect.DictType | inspect.VarTupleType | inspect.ListType
    )


def _absent(node: Scalar, others: list[inspect.Type]) -> bool:
    """A ${VAR} with the word null is text if text is allowed; an empty one always means no value."""
    text = any(isinstance(kind, inspect.StrType) or _is_secret(kind) for kind in others)
    return node.value is None and not (node.expanded and node.text and text)


def _is_secret(kind: inspect.Type) -> bool:
    return isinstance(kind, inspect.CustomType) and issubclass(kind.cls, Secret)


_CONTAINERS: dict[type, Callable[[list[Any]], Any]] = {
    inspect.VarTupleType: tuple,
    inspect.ListType: list,
    inspect.FrozenSetType: frozenset,
}


def scalar(node: Scalar, kind: inspect.Type) -> Any:
    """Converts one value to type `kind`. Raises ValueError with what is expected."""
    if isinstance(kind, inspect.Metadata):
        return _described(node, kind)
    text = node.text if node.expanded else node.value
    match kind, node.value:
        case inspect.StrType(), _ if isinstance(text, str):
            return _text_within(text, kind)
        case inspect.CustomType(cls=cls), value if issubclass(cls, Seconds | Bytes | Rate):
            if issubclass(cls, Seconds):
                cls.check_written(value)
            return cls.parse(value)
        case inspect.CustomType(cls=cls), int() | float() if issubclass(cls, Secret) and not node.expanded:
            raise ValueError("expected text: put it in quotes")
        case inspect.CustomType(cls=cls), _ if issubclass(cls, Secret):
            return cls.parse(text)
        case inspect.LiteralType(values=values), value:
            return _choice(value, values)
        case inspect.BoolType(), bool(value):
            return value
        case inspect.IntType(), int(value) if not isinstance(value, bool):
            return _number_within(value, kind)
        case inspect.FloatType(), int(value) | float(value) if not isinstance(value, bool) and math.isfinite(
            value
        ):
            return _number_within(float(value), kind)
    raise ValueError(
        f"expected {_EXPECTED.get(type(kind), 'a value that this option can hold')}{_quote_hint(node, kind)}"
    )


def _described(node: Scalar, kind: inspect.Metadata) -> Any:
    """A text with a pattern is explained by the description in its Meta."""
    try:
        return scalar(node, kind.type)
    except ValueError:
        description = (kind.extra_json_schema or {}).get("description")
        if description is None or not isinstance(kind.type, inspect.StrType):
            raise
        raise ValueError(f"expected {description}") from None


_EXPECTED: dict[type, str] = {
    inspect.StrType: "text",
    inspect.BoolType: "true or false",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
}


def _quote_hint(node: Scalar, kind: inspect.Type) -> str:
    return " (put it in quotes)" if isinstance(kind, inspect.StrType) and node.value is not None else ""


def _choice(value: object, values: tuple[object, ...]) -> object:
    if value in values and not isinstance(value, bool):
        return value
    hint = suggestion(value, map(str, values)) if isinstance(value, str) else ""
    raise ValueError(f"expected one of {', '.join(map(str, values))}{hint}")


def _text_within(text: str, kind: inspect.StrType) -> str:
    if kind.min_length is not None and len(text) < kind.min_length:
        raise ValueError(f"expected at least {kind.min_length} characters")
    if kind.max_length is not None and len(text) > kind.max_length:
        raise ValueError(f"expected at most {kind.max_length} characters")
    if kind.pattern is not None and not re.search(kind.pattern, text):
        raise ValueError(f"does not match {kind.pattern.replace(chr(92) + 'Z', '$')}")
    return text


def _number_within(value: Any, kind: inspect.IntType | inspect.FloatType) -> Any:
    for bound, words, holds in (
        (kind.ge, "at least", operator.ge),
        (kind.gt, "more than", operator.gt),
        (kind.le, "at most", operator.le),
        (kind.lt, "less than", operator.lt),
    ):
        if bound is not None and not holds(value, bound):
            raise ValueError(f"must be {words} {bound}")
    return value


def as_builtins(node: Node) -> Any:
    """Returns the tree as Python's own types."""
    match node:
        case Scalar():
            return node.text if node.expanded and not node.plain else node.value
        case Sequence():
            return [as_builtins(item) for item in node.items]
        case Mapping():
            return {key: as_builtins(entry.node) for key, entry in node.entries.items()}
    return INVALID
