"""Conversations as people mean them, whatever the dialect: what the matrix writes and reads, and how it makes
them up.

Nothing here knows the gateway's own vocabulary: it is the oracle's.
"""

import base64
import json
from typing import Any, Literal

import msgspec
from hypothesis import strategies as st

Value = dict[str, Any]


class Picture(msgspec.Struct, frozen=True):
    """`kind` is png or jpeg; `data` is base64."""

    kind: str
    data: str

    @property
    def url(self) -> str:
        return f"data:image/{self.kind};base64,{self.data}"


Content = str | Picture


class User(msgspec.Struct, frozen=True):
    content: tuple[Content, ...]


class Call(msgspec.Struct, frozen=True):
    id: str
    name: str
    arguments: Value


class Said(msgspec.Struct, frozen=True):
    """An assistant's turn. `thought` is reasoning that no vendor has sealed."""

    text: str
    calls: tuple[Call, ...] = ()
    thought: str = ""


class Result(msgspec.Struct, frozen=True):
    text: str
    pictures: tuple[Picture, ...] = ()
    failed: bool = False


class Results(msgspec.Struct, frozen=True):
    """What came of each call of the turn before, in the order of the calls."""

    results: tuple[Result, ...]


Turn = User | Said | Results


class Tool(msgspec.Struct, frozen=True):
    name: str
    description: str
    parameters: Value
    strict: bool = False


Effort = Literal["", "low", "medium", "high"]


class Talk(msgspec.Struct, frozen=True):
    """A request. `choice` is "", auto, none, required, or the name of a tool behind "the "; `format` is "",
    "json" or a schema; `sampling` has OpenAI's names."""

    turns: tuple[Turn, ...]
    system: str = ""
    tools: tuple[Tool, ...] = ()
    choice: str = ""
    one_call: bool = False
    sampling: Value = {}
    effort: Effort = ""
    format: Any = ""
    stream: bool = True

    @property
    def has_pictures(self) -> bool:
        contents = [part for turn in self.turns if isinstance(turn, User) for part in turn.content]
        shown = [
            picture
            for turn in self.turns
            if isinstance(turn, Results)
            for r in turn.results
            for picture in r.pictures
        ]
        return bool(shown) or any(isinstance(part, Picture) for part in contents)


# --- what was meant, in a form in which any two can be compared


def normal(turns: list[Any], *, follow: bool = False) -> list[Any]:
    """Turns with neighbouring ones of one role put together. `follow`: pictures of results stand in the
    user's next turn."""
    found: list[Any] = []
    shown: list[Any] = []
    for turn in turns:
        match turn:
            case User(content=content):
                found.append(["user", [*shown, *content]])
                shown = []
            case Said():
                if shown:
                    found.append(["user", shown])
                    shown = []
                found.append(["assistant", turn.text, [[call.name, call.arguments] for call in turn.calls]])
            case Results(results=results):
                told = []
                for result in results:
                    pictures = list(result.pictures)
                    if follow:
                        shown += pictures
                        pictures = []
                    told.append([_value(result.text), result.failed, pictures])
                found.append(["results", told])
    if shown:
        found.append(["user", shown])
    return _together(found)


def _value(text: str) -> Any:
    """Results that are JSON objects may be sent as such."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, dict) else text


def _together(turns: list[Any]) -> list[Any]:
    found: list[Any] = []
    for turn in turns:
        if found and turn[0] == found[-1][0] == "user":
            found[-1][1].extend(turn[1])
        else:
            found.append([turn[0], list(turn[1]), *turn[2:]] if turn[0] == "user" else turn)
    for turn in found:
        if turn[0] == "user":
            turn[1] = _texts_together(turn[1])
    return found


def _texts_together(content: list[Any]) -> list[Any]:
    found: list[Any] = []
    for part in content:
        if found and isinstance(part, str) and isinstance(found[-1], str):
            found[-1] += part
        else:
            found.append(part)
    return found


def texts_first(turns: list[Any]) -> list[Any]:
    """The same where a dialect has texts and pictures apart."""
    found = []
    for turn in turns:
        if turn[0] == "user":
            texts = "".join([part for part in turn[1] if isinstance(part, str)])
            turn = [
                "user",
                [*([texts] if texts else []), *(part for part in turn[1] if not isinstance(part, str))],
            ]
        found.append(turn)
    return found


# --- made up

ODD = [
    "\u2028",
    "\u0000",
    "\U0001f600",
    "é",
    '"',
    "\\",
    "\r\n",
    "data: [DONE]\n\n",
    "\\ud83d",
    "</think>",
    "\ufeff",
    "\x85",
    "'",
    "{",
]
characters = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
texts = (
    st.lists(characters | st.sampled_from(ODD), min_size=1, max_size=4)
    .map("".join)
    .filter(lambda text: text.strip() != "")
)
names = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True)
ids = st.one_of(
    st.from_regex(r"call_[A-Za-z0-9]{4,24}", fullmatch=True),
    st.from_regex(r"toolu_[A-Za-z0-9]{8}", fullmatch=True),
    st.sampled_from(["functions.w:0", "call_0", "a b/ü", "x" * 80, "fc_68|call_1", "abcDEF123", "é"]),
)
_HEADS = {"png": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR", "jpeg": b"\xff\xd8\xff\xe0"}


@st.composite
def pictures(draw: st.DrawFn) -> Picture:
    kind = draw(st.sampled_from(["png", "jpeg"]))
    return Picture(kind, base64.b64encode(_HEADS[kind] + draw(st.binary(max_size=9))).decode())


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | characters,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(characters, inner, max_size=2),
    max_leaves=4,
)
objects = st.dictionaries(characters, values, max_size=3)
_leaves = st.sampled_from([
    {"type": "string"}, {"type": "string", "enum": ["a", "ü\u2028"]}, {"type": "integer", "minimum": 1}, {"type": "boolean"},
    {"type": "array", "items": {"type": "number"}}, {"anyOf": [{"type": "string"}, {"type": "null"}]},
    {"type": "object", "properties": {"type": {"type": "string", "description": "a \"quoted\" one"}}, "required": ["type"]},
])  # fmt: skip


@st.composite
def schemas(draw: st.DrawFn) -> Value:
    properties = draw(st.dictionaries(names, _leaves, min_size=1, max_size=3))
    more = {"additionalProperties": False} if draw(st.booleans()) else {}
    return {"type": "object", "properties": properties, "required": sorted(properties), **more}


@st.composite
def results(draw: st.DrawFn) -> Result:
    text = draw(
        texts
        | st.just("")
        | objects.map(json.dumps)
        | st.sampled_from(["[1, 2]", "null", "Error: gone", '{"a": '])
    )
    return Result(
        text,
        tuple(draw(st.lists(pictures(), max_size=2))) if draw(st.booleans()) else (),
        draw(st.booleans()),
    )


@st.composite
def turns_of(draw: st.DrawFn, tools: tuple[Tool, ...]) -> tuple[Turn, ...]:
    contents = st.lists(texts | pictures(), min_size=1, max_size=3)
    turns: list[Turn] = [User(tuple(draw(contents)))]
    for _ in range(draw(st.integers(0, 3))):
        if tools and draw(st.booleans()):
            called = draw(st.lists(ids, min_size=1, max_size=3, unique=True))
            calls = tuple([Call(id, draw(st.sampled_from(tools)).name, draw(objects)) for id in called])
            turns.append(Said(draw(texts | st.just("")), calls, draw(texts | st.just(""))))
            turns.append(Results(tuple([draw(results()) for _ in calls])))
            if draw(st.booleans()):
                continue
        else:
            turns.append(Said(draw(texts), (), draw(texts | st.just(""))))
        turns.append(User(tuple(draw(contents))))
    if isinstance(turns[-1], Said):
        turns.append(User(("go on",)))
    return tuple(turns)


@st.composite
def talks(draw: st.DrawFn) -> Talk:
    names_of = draw(st.lists(names, max_size=3, unique=True))
    tools = tuple(
        [Tool(name, draw(texts | st.just("")), draw(schemas()), draw(st.booleans())) for name in names_of]
    )
    choices = ["", "auto", "none", "required", *(f"the {tool.name}" for tool in tools)]
    effort: Effort = draw(st.sampled_from(["", "", "low", "medium", "high"]))
    return Talk(
        draw(turns_of(tools)),
        draw(texts | st.just("")),
        tools,
        draw(st.sampled_from(choices)) if tools else "",
        draw(st.booleans()) if tools else False,
        {} if effort else draw(samplings()),
        effort,
        draw(st.sampled_from(["", "", "json"]) | schemas()),
        draw(st.booleans()),
    )


@st.composite
def samplings(draw: st.DrawFn) -> Value:
    """Within what all vendors take, and one of two where some take only one."""
    found: Value = {
        "max_tokens": draw(st.none() | st.integers(16, 4000)),  # OpenAI's Responses take no fewer
        draw(st.sampled_from(["temperature", "top_p"])): draw(st.none() | st.sampled_from([0.25, 0.5, 0.95])),
        draw(st.sampled_from(["frequency_penalty", "presence_penalty"])): draw(
            st.none() | st.sampled_from([0.0, 0.5, 1.0])
        ),
        "stop": draw(st.none() | st.lists(texts, min_size=1, max_size=2)),
        "seed": draw(st.none() | st.integers(0, 2**31 - 1)),
        "top_k": draw(st.none() | st.integers(1, 100)),
    }
    return {name: value for name, value in found.items() if value is not None}
