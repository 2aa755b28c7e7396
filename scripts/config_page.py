"""Write docs/configuration.md anew, of config/schema.json: python scripts/config_page.py"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "configuration.md"
SCHEMA = ROOT / "config" / "schema.json"
BEGIN, END = "<!-- scripts/config_page.py -->\n", "<!-- end -->\n"
UNITS = {
    "A duration:": "duration",
    "A size:": "size",
    "Units per second": "rate",
    "A secret:": "secret",
    "sha256: and 64 hex digits": "`sha256:…`",
    "a name:": "name",
}
"""What a type's own description begins with, and what it is called in the tables; the page's head explains
it."""

Schema = dict[str, Any]


def page(text: str, schema: Schema) -> str:
    """The page with its tables as they have to be. Raises ValueError where the page has no place for them."""
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{PAGE} has no place for the tables")
    return before + BEGIN + "\n" + "\n".join(_sections(schema["$defs"])) + "\n" + END + after


def _sections(defs: dict[str, Schema]) -> Iterator[str]:
    """Each section once, in the order in which the file's options lead to it."""
    waiting, done = ["Config"], set()
    while waiting:
        name = waiting.pop(0)
        if name in done:
            continue
        done.add(name)
        section = defs[name]
        yield f"## {'The file' if name == 'Config' else _title(name)}\n"
        yield from _body(section)
        for option in section.get("allOf", ()):
            [(key, chosen)] = option["if"]["properties"].items()
            names = chosen.get("enum") or [chosen["const"]]
            then = option["then"]
            own = {name: value for name, value in then["properties"].items() if value is not True}
            yield f"### {_title(name)} with `{key}: {names[0]}`\n"
            if names[1:]:
                yield f"Also: {', '.join(f'`{other}`' for other in names[1:])}.\n"
            yield from _body({**then, "properties": own})
        waiting += [
            found for found in re.findall(r"#/\$defs/(\w+)", json.dumps(section)) if found not in done
        ]


def _body(section: Schema) -> Iterator[str]:
    if about := section.get("description"):
        yield f"{_safe(about)}\n"
    required = section.get("required", ())
    rows = [
        f"| `{name}` | {_kind(option)} | {_default(name, option, required)} | {_about(option)} |\n"
        for name, option in section["properties"].items()
    ]
    if rows:
        yield "| option | value | default | what it is |\n|---|---|---|---|\n" + "".join(rows)


def _kind(schema: Schema) -> str:
    """What may stand there, in a few words."""
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        return f"[{_title(name)}](#{_anchor(name)})"
    if members := schema.get("anyOf"):
        kinds = dict.fromkeys(_kind(member) for member in members if not _is_variable(member))
        return " or ".join(kinds)
    for beginning, unit in UNITS.items():
        if beginning in schema.get("description", ""):
            return unit
    if choices := schema.get("enum"):
        return ", ".join(f"`{choice}`" for choice in choices)
    match schema.get("type"):
        case "array":
            return f"list of {_kind(schema['items'])}" if schema["items"] else "list"
        case "object" if value := schema.get("additionalProperties"):
            return f"by name: {_kind(value)}"
        case "object":
            return "section"
        case "string":
            return "text"
        case "boolean":
            return "`true`, `false`"
        case "integer" | "number" as kind:
            return kind + _bounds(schema)
        case "null":
            return "`null`"
    return "anything"


def _bounds(schema: Schema) -> str:
    least, above, most = schema.get("minimum"), schema.get("exclusiveMinimum"), schema.get("maximum")
    parts = (
        f"from {least}" if least is not None else f"above {above}" if above is not None else "",
        f"to {most}" if most is not None else "",
    )
    return "".join(f" {part}" for part in parts if part)


def _is_variable(schema: Schema) -> bool:
    """Whether it only says that ${VAR} may stand in the place of the value; the page's head does."""
    return schema.get("pattern") == r"^\$\{[^}]*\}$"


def _default(name: str, option: Schema, required: list[str] | tuple[str, ...]) -> str:
    if name in required:
        return "required"
    if "default" not in option:
        return ""
    value = option["default"]
    match _kind(option):
        case kind if kind.startswith("size") and isinstance(value, int) and value:
            return f"`{_size(value)}`"
        case kind if kind.startswith("duration") and isinstance(value, int | float):
            return f"`{_duration(value)}`"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _size(value: int) -> str:
    for unit, bytes_ in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value % bytes_ == 0:
            return f"{value // bytes_}{unit}"
    return str(value)


def _duration(value: float) -> str:
    for unit, seconds in (("d", 86400), ("h", 3600), ("m", 60)):
        if value and value % seconds == 0:
            return f"{int(value // seconds)}{unit}"
    return f"{value:g}s" if value >= 1 or not value else f"{value * 1000:g}ms"


def _about(option: Schema) -> str:
    """The option's own description, without that of its type."""
    about = option.get("description", "")
    for beginning in UNITS:
        before, found, _ = about.partition(beginning)
        if found:
            about = before.strip()
    return _safe(about)


def _safe(text: str) -> str:
    """Text whose < > | and addresses are no markup."""
    text = text.replace("|", "\\|")
    return "".join(
        part if at % 2 else part.replace("<", "&lt;").replace("*", "\\*")
        for at, part in enumerate(re.split("(`[^`]*`)", text))
    )


def _title(name: str) -> str:
    return (
        re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
        .capitalize()
        .replace("tls", "TLS")
        .replace("otlp", "OTLP")
        .replace("kafka", "Kafka")
        .replace("sasl", "SASL")
    )


def _anchor(name: str) -> str:
    return _title(name).lower().replace(" ", "-")


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(), json.loads(SCHEMA.read_text())))
