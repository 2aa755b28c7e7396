"""Reads a caller's JSON with the parser of the configuration, so that options have the same syntax wherever
they occur."""

from typing import Any, TypeVar

import msgspec

from sluice.config.problems import Problem, Report
from sluice.config.validation import Walk, type_info
from sluice.config.yamltext import Mapping, Node, Scalar, Sequence, TextPosition, YamlEntry
from sluice.errors import BadRequest

T = TypeVar("T", bound=msgspec.Struct)

_HERE = TextPosition()
_MAX_INTEGER = 2**63


def read(wire: dict[str, Any], kind: type[T], report: Report) -> T:
    """Reads `wire` as a `kind`. Raises BadRequest with every problem, including those that `report` has
    already."""
    value: T = Walk(report).value(node_of(wire), type_info(kind))
    if report.problems:
        raise refusal(report.problems)
    return value


def node_of(value: Any) -> Node:
    """Parses a JSON text into a tree. Raises BadRequest for integers that are too large."""
    match value:
        case dict():
            return Mapping(_HERE, {key: YamlEntry(_HERE, node_of(inner)) for key, inner in value.items()})
        case list():
            return Sequence(_HERE, tuple(map(node_of, value)))
        case int() if abs(value) >= _MAX_INTEGER:
            raise BadRequest("The body holds an integer out of range")
    return Scalar(_HERE, value if isinstance(value, str) else "", value, plain=False)


def refusal(problems: list[Problem]) -> BadRequest:
    """Returns the invalid fields, and the reasons."""
    details = [{"field": problem.path or "body", "reason": problem.message} for problem in problems]
    first = details[0]
    return BadRequest(f"{first['field']}: {first['reason']}", param=first["field"], details=details)
