"""Parses YAML into a tree with positions.

The rules are those of the YAML 1.2 core schema (https://yaml.org/spec/1.2.2/#103-core-schema): `no` is text,
`012` is twelve, `1:30` is text. One document; duplicate keys are refused; anchors, aliases and merge keys
(`<<`) work within bounds, so that nested aliases or brackets cannot exhaust the memory. Only libyaml's parser
is used; no objects are constructed.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import yaml

MAX_DEPTH = 64
MAX_ALIASED = 100_000  # maximum nodes that exist only through aliases; the others are bounded by the file

Value = None | bool | int | float | str


class TextPosition(msgspec.Struct, frozen=True, order=True):
    """A position as editors count it: from 1."""

    line: int = 1
    column: int = 1


class Scalar(msgspec.Struct, frozen=True):
    """`text` as written, `value` as the core schema reads it; `plain`: not quoted; `expanded`: ${VAR} was in
    it."""

    at: TextPosition
    text: str
    value: Value
    plain: bool = True
    expanded: bool = False


class Sequence(msgspec.Struct, frozen=True):
    at: TextPosition
    items: tuple["Node", ...]


class YamlEntry(msgspec.Struct, frozen=True):
    at: TextPosition  # of the key
    node: "Node"


class Mapping(msgspec.Struct, frozen=True):
    at: TextPosition
    entries: dict[str, YamlEntry]


class Broken(msgspec.Struct, frozen=True):
    """A node about which a problem has been reported already."""

    at: TextPosition


Node = Scalar | Sequence | Mapping | Broken


class YamlError(Exception):
    """The text is not a YAML document that can be read. `path`: the place in the tree, as far as it is known."""

    def __init__(self, at: TextPosition, message: str) -> None:
        super().__init__(message)
        self.at = at
        self.message = message


_PAIR = re.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_NULL = re.compile(r"(?:~|null|Null|NULL)?")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]{1,100}|0o[0-7]{1,100}|0x[0-9a-fA-F]{1,100}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_TAGS = {"map": "tag:yaml.org,2002:map", "seq": "tag:yaml.org,2002:seq", "str": "tag:yaml.org,2002:str"}


def resolve(text: str) -> Value:
    """Returns the value of an unquoted scalar by the core schema."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text[0] in "tT"
    if _INT.fullmatch(text):
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", "").lower())
    return text


def read(data: bytes) -> Node:
    """Returns the one document in `data`; an empty file is an empty mapping. Raises YamlError."""
    text = _decode(data)
    if _PAIR.search(text):
        text = _PAIR.sub(_one_escape, text)
    try:
        return _Tree(yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))).document()
    except yaml.MarkedYAMLError as error:
        at = _mark(error.problem_mark or error.context_mark)
        problem = error.problem or error.context or "cannot be read"
        hint = _hint(text, at) or _expected(problem, error.context or "", _mark(error.context_mark))
        raise YamlError(at, f"not YAML: {problem}{hint}") from None
    except yaml.reader.ReaderError as error:
        raise YamlError(
            _at(text[: error.position]), "not YAML: a character that YAML does not allow"
        ) from None


def _one_escape(pair: re.Match[str]) -> str:
    """Joins two escapes for one character: JSON writes a character beyond U+FFFF as two (RFC 8259 7), YAML as
    one (YAML 1.2 5.7)."""
    high, low = int(pair[1], 16), int(pair[2], 16)
    return f"\\U{0x10000 + (high - 0xD800 << 10) + (low - 0xDC00):08x}"


def _hint(text: str, at: TextPosition) -> str:
    """Guesses the intended text from the line at which the parser failed."""
    lines = text.split("\n")
    line = lines[at.line - 1] if at.line <= len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())] or line[at.column - 1 : at.column] == "\t":
        return " (indent with spaces: YAML knows no tabs)"
    before = lines[at.line - 2] if at.line > 1 else ""
    if any(
        re.search(r"[{,:\[]\s*\$\{", candidate) and "{" in candidate.split("${")[0]
        for candidate in (line, before)
    ):
        return ' (within { } write "${NAME}" in quotes)'
    return ""


def _expected(problem: str, context: str, begun: TextPosition) -> str:
    """Returns what the parser expected where it failed, in words for people who write YAML. `begun`: where
    the enclosing section, list or text began."""
    where = f"line {begun.line}, column {begun.column}"
    match problem, context.removeprefix("while parsing a ").removeprefix("while scanning a "):
        case "did not find expected key", "block mapping":
            return (
                f" (the keys of one section begin in the same column; this is the one that begins in {where})"
            )
        case "did not find expected '-' indicator", _:
            return f" (the items of one list begin with a dash in the same column; this is the one that begins in {where})"
        case _, "flow mapping":
            return f" (the {{ in {where} is not closed before this: write {{ key: value, key: value }})"
        case _, "flow sequence":
            return f" (the [ in {where} is not closed before this: write [first, second])"
        case _, "quoted scalar":
            return f" (the quote in {where} is not closed)"
        case "could not find expected ':'", _:
            return f" (write key: value, with a space behind the colon; see {where})"
        case "mapping values are not allowed in this context", _:
            return " (a text with a colon and a space in it wants quotes; or this line is indented too far)"
        case _:
            return ""


def _decode(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise YamlError(_at(data[: error.start].decode("utf-8", "replace")), "not UTF-8") from None


def _at(before: str) -> TextPosition:
    return TextPosition(before.count("\n") + 1, len(before) - before.rfind("\n"))


def _mark(mark: Any) -> TextPosition:
    return TextPosition(mark.line + 1, mark.column + 1) if mark is not None else TextPosition()


class _Tree:
    """Builds nodes from libyaml's events and their marks. Its composer would recurse without a bound, and
    crash the process."""

    def __init__(self, events: Iterator[Any]) -> None:
        self._events = events
        self._anchors: dict[
            str, tuple[Node, int]
        ] = {}  # a node is known once it is complete: it cannot contain itself
        self._depth = 0
        self._count = 0
        self._aliased = 0

    def document(self) -> Node:
        root: Node | None = None
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    raise YamlError(
                        _mark(event.start_mark), "not YAML: a second document; one file is one document"
                    )
                root = self._node(next(self._events))
        return root or Mapping(TextPosition(), {})

    def _node(self, event: Any) -> Node:
        at = _mark(event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(str(event.anchor), at)
        before = self._count
        self._count += 1
        node: Node
        match event:
            case yaml.ScalarEvent():
                node = _scalar(event, at)
            case yaml.SequenceStartEvent():
                _refuse_tag(event.tag, "seq", at)
                node = Sequence(at, tuple(self._items(yaml.SequenceEndEvent, at)))
            case _:
                _refuse_tag(event.tag, "map", at)
                node = Mapping(at, self._entries(at))
        if event.anchor:
            self._anchors[event.anchor] = node, self._count - before
        return node

    def _alias(self, name: str, at: TextPosition) -> Node:
        try:
            node, size = self._anchors[name]
        except KeyError:
            raise YamlError(at, f"not YAML: no anchor &{name} before this, or it would hold itself") from None
        self._count += size
        self._aliased += size
        if self._aliased > MAX_ALIASED:
            raise YamlError(at, f"aliases stand for more than {MAX_ALIASED} values")
        return node

    def _items(self, end: type, at: TextPosition) -> Iterator[Node]:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise YamlError(at, f"nested deeper than {MAX_DEPTH}")
        while not isinstance(event := next(self._events), end):
            yield self._node(event)
        self._depth -= 1

    def _entries(self, at: TextPosition) -> dict[str, YamlEntry]:
        own: dict[str, YamlEntry] = {}
        merged: dict[str, YamlEntry] = {}
        nodes = self._items(yaml.MappingEndEvent, at)
        for key in nodes:
            value = next(nodes)
            if not isinstance(key, Scalar):
                raise YamlError(key.at, "a key must be a word")
            if key.text == "<<" and key.plain:
                merged = {**_merge(value), **merged}
            elif key.text in own:
                first = own[key.text].at.line
                raise YamlError(key.at, f'duplicate key "{key.text}": it stands in line {first} already')
            else:
                own[key.text] = YamlEntry(key.at, value)
        return {**merged, **own}


def _scalar(event: Any, at: TextPosition) -> Scalar:
    plain = not event.style
    if event.tag not in (None, "!", _TAGS["str"]):
        raise YamlError(at, "not YAML that we read: only the tags !!str, !!seq and !!map are known")
    value = resolve(event.value) if plain and event.tag is None else event.value
    return Scalar(at, event.value, value, plain)


def _refuse_tag(tag: str | None, kind: str, at: TextPosition) -> None:
    if tag not in (None, "!", _TAGS[kind]):
        raise YamlError(at, "not YAML that we read: only the tags !!str, !!seq and !!map are known")


def _merge(value: Node) -> dict[str, YamlEntry]:
    """Merges mappings. https://yaml.org/type/merge.html: of several mappings the earlier one takes
    precedence."""
    match value:
        case Mapping():
            return value.entries
        case Sequence():
            merged: dict[str, YamlEntry] = {}
            for item in value.items:
                merged = {**_merge(item), **merged}
            return merged
    raise YamlError(value.at, "<< takes a mapping or a list of mappings")
