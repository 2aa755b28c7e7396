"""docs/logs.md has every event and every field of a log line and of a call's record, and nothing else."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from sluice.sinks.record import Draft
from sluice.telemetry.records import DetachedLine, RequestLine

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/logs.md").read_text()
WRITERS = {
    "debug",
    "info",
    "warning",
    "error",
    "say",
    "begin",
    "end",
    "seen",
    "unseen",
    "_line",
    "warn",
    "_warn",
}
LEVELS = {"debug", "info", "warning", "error"}
ELSEWHERE = {"request", "detached", "log_lines_dropped", "account_refused", "credentials_refused"}
"""Events whose names stand in other places than in a call that writes them."""


def rows(heading: str) -> dict[str, str]:
    """The tables below a heading: the first column's name -> the second column."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return dict(re.findall(r"^\| `([a-z_.]+)` \| (.*?)\|", section, re.MULTILINE))


@cache
def written() -> dict[str, set[str]]:
    """Event -> the fields that are given where it is written."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "gateway").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and _name(node.func) in WRITERS
                and "watches" not in ast.unparse(node.func)
            ):
                for argument in node.args[:3]:
                    if isinstance(argument, ast.Constant) and _is_event(argument.value):
                        found.setdefault(argument.value, set()).update(
                            word.arg for word in node.keywords if word.arg
                        )
    return found


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _is_event(value: Any) -> bool:
    return (
        isinstance(value, str)
        and re.fullmatch(r"[a-z]+(_[a-z]+)*", value) is not None
        and value not in LEVELS
    )


def test_every_event_is_documented_and_no_other() -> None:
    assert rows("Events").keys() == written().keys() | ELSEWHERE


def test_every_field_of_an_event_is_documented() -> None:
    documented = {event: {*re.findall(r"`([a-z_]+)`", row)} for event, row in rows("Events").items()}
    missing = {event: fields - documented[event] for event, fields in written().items() if event != "request"}
    assert not any(missing.values()), missing


def test_every_field_of_a_requests_line_is_documented_and_no_other() -> None:
    structs = (RequestLine, DetachedLine)
    fields = {field.encode_name for struct in structs for field in msgspec.structs.fields(struct)}
    assert rows("The line of a request").keys() == fields


def test_every_field_of_a_record_is_documented() -> None:
    own = {"record", "tenant", "attempts", "prompt", "answer"}
    assert rows("Call records").keys() >= own
    assert Draft({"record": "call"}, 0.0).line() == b'{"record":"call"}'
