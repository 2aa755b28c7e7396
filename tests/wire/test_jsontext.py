"""A caller's JSON, strictly: what is no object of RFC 8259 in UTF-8 is refused with a reason that quotes
nothing."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sluice.errors import BadRequest
from sluice.wire import jsontext
from sluice.wire.jsontext import MAX_DEPTH, MAX_NODES, oversized, parse_object, slow_numbers

SECURITY = Path(__file__).resolve().parents[3] / "shared" / "security"
SUITE = SECURITY / "jsontestsuite" / "test_parsing"
BLNS = SECURITY / "blns" / "blns.json"
ABSENT = f"the recorded security vectors are not here ({SECURITY})"

needs_vectors = pytest.mark.skipif(not SUITE.exists() or not BLNS.exists(), reason=ABSENT)

REFUSED: list[tuple[str, bytes, str]] = [
    ("nothing", b"", "empty"),
    ("blanks", b" \n ", "not valid JSON"),
    ("text", b"hello", "not valid JSON"),
    ("half an object", b'{"a":', "line 1, column 6"),
    ("two values", b"{}{}", "not valid JSON"),
    ("a comma too many", b'{"a":1,}', "not valid JSON"),
    ("a comment", b"{/* */}", "not valid JSON"),
    ("single quotes", b"{'a':1}", "not valid JSON"),
    ("a control character in a string", b'{"a":"\x01"}', "not valid JSON"),
    ("a NUL behind the value", b"{}\0", "not valid JSON"),
    ("an octal number", b'{"a":012}', "not valid JSON"),
    ("an array", b"[]", "must be a JSON object"),
    ("a string", b'"a"', "must be a JSON object"),
    ("null", b"null", "must be a JSON object"),
    ("a duplicate key", b'{"a":1,"a":1}', "same key twice"),
    ("a duplicate key beside a quote in disguise", b'{"a":1,"a":2,"x":"\\u0022:"}', "same key twice"),
    ("a duplicate key beside a colon in disguise", b'{"a":1,"a":2,"x":"\\"\\u003a"}', "same key twice"),
    ("a duplicate key beside another in a text", b'{"a":1,"a":2,"x":"\\":\\u003A"}', "same key twice"),
    ("a duplicate key, deep and escaped", b'{"x":[{"a":1,"\\u0061":2}]}', "same key twice"),
    ("NaN", b'{"a":NaN}', "NaN"),
    ("Infinity", b'{"a":Infinity}', "NaN and Infinity"),
    ("minus Infinity", b'{"a":[-Infinity]}', "NaN and Infinity"),
    ("a number beyond doubles", b'{"a":1e999}', "out of range"),
    ("a number below doubles", b'{"a":-1e999}', "out of range"),
    ("an integer of 4301 digits", b'{"a":' + b"9" * 4301 + b"}", "too many digits"),
    ("a byte order mark and nothing", b"\xef\xbb\xbf", "empty"),
    ("two byte order marks", b"\xef\xbb\xbf\xef\xbb\xbf{}", "not valid JSON"),
    ("UTF-16", '{"a":1}'.encode("utf-16"), "not UTF-8"),
    ("UTF-16 without its mark", '{"a":1}'.encode("utf-16-le"), "not valid JSON"),
    ("Latin-1", b'{"a":"\xe4"}', "not UTF-8 (at byte 6)"),
    ("a surrogate in UTF-8", b'{"a":"\xed\xa0\x80"}', "not UTF-8"),
    ("an overlong slash", b'{"a":"\xc0\xaf"}', "not UTF-8"),
    ("a lone high surrogate", b'{"a":"\\ud83d"}', "lone surrogate"),
    ("a lone low surrogate", b'{"a":"\\uDE00"}', "lone surrogate"),
    ("surrogates the wrong way round", b'{"a":"\\ude00\\ud83d"}', "lone surrogate"),
    ("a lone surrogate in a key", b'{"\\uD800":1}', "lone surrogate"),
    ("arrays one too deep", b'{"a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}", "nests more"),
    ("objects one too deep", b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1), "nests more"),
    ("a hundred thousand arrays", b'{"a":' + b"[" * 100_000, "more than"),
    ("a hundred thousand objects", b'{"a":' * 100_000, "more than"),
    ("a hundred thousand closed arrays", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "more than"),
    (
        "too deep behind strings full of brackets",
        b'{"x":"]]\\"]]","a":' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b"}",
        "nests more",
    ),
    (
        "too deep in the middle",
        b'{"a":[' + b"[]," * 300 + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH + b",[]]}",
        "nests more",
    ),
    (
        "too deep, arrays and objects in turn",
        b'{"a":' + b'[{"a":' * 100 + b"1" + b"}]" * 100 + b"}",
        "nests more",
    ),
    ("too many numbers", b'{"a":[' + b"1," * 100_000 + b"1]}", "more than 100000 values"),
    ("too many empty arrays", b'{"a":[' + b"[]," * 100_000 + b"[]]}", "more than 100000 values"),
    ("too many empty strings", b'{"a":[' + b'"",' * 100_000 + b'""]}', "more than 100000 values"),
    (
        "too many keys",
        b"{" + b",".join(b'"%d":1' % n for n in range(100_001)) + b"}",
        "more than 100000 values",
    ),
    (
        "too many values with spaces between them",
        b'{"a":[' + b"1 , " * 100_000 + b"1]}",
        "more than 100000 values",
    ),
    (
        "too many values behind commas in a string",
        b'{"x":"' + b",\\\\" * 9 + b'","a":[' + b"1," * 100_000 + b"1]}",
        "more than",
    ),
    ("too many objects, never closed", b'{"a":' + b'[{"a":' * 60_000, "more than 100000 values"),
    ("too many strings, cut", b"{" + b'"":"",' * 110_000, "more than 100000 values"),
]

ACCEPTED: list[tuple[str, bytes, dict[str, Any]]] = [
    ("empty", b"{}", {}),
    ("blanks around", b' \r\n\t{"a" : 1 }\n', {"a": 1}),
    (
        "every kind",
        b'{"a":[1,-0.5,2e3,true,false,null,"",{}]}',
        {"a": [1, -0.5, 2000.0, True, False, None, "", {}]},
    ),
    ("4300 digits", b'{"a":' + b"9" * 4300 + b"}", {"a": int("9" * 4300)}),
    ("a number too small for a double", b'{"a":1e-999}', {"a": 0.0}),
    ("a pair of surrogates", b'{"a":"\\ud83d\\ude00"}', {"a": "\U0001f600"}),
    ("an escaped backslash before ud800", b'{"a":"\\\\ud800"}', {"a": "\\ud800"}),
    ("non-characters", b'{"a":"\\uffff\xef\xbf\xbf"}', {"a": "\uffff\uffff"}),
    ("a NUL, escaped", b'{"a":"\\u0000"}', {"a": "\0"}),
    ("a byte order mark", b'\xef\xbb\xbf{"a":1}', {"a": 1}),
    ("a byte order mark inside", b'{"a":"\xef\xbb\xbf"}', {"a": "\ufeff"}),
    ("the same key in two objects", b'{"a":{"k":1},"b":{"k":1}}', {"a": {"k": 1}, "b": {"k": 1}}),
    ("brackets in a string", b'{"a":"' + b"[{" * 1000 + b'"}', {"a": "[{" * 1000}),
    ("as many values as may be", b'{"a":[' + b"1," * 99_997 + b"1]}", {"a": [1] * 99_998}),
    (
        "more commas in a string than there may be values",
        b'{"a":"' + b"," * 300_000 + b'"}',
        {"a": "," * 300_000},
    ),
    ("more brackets in a string", b'{"a":"' + b"[{" * 200_000 + b'"}', {"a": "[{" * 200_000}),
    (
        "more of them behind an escaped quote",
        b'{"a":"\\\\\\"' + b",[" * 200_000 + b'"}',
        {"a": '\\"' + ",[" * 200_000},
    ),
    ("closing brackets in a string", b'{"a":[["' + b"]" * 300 + b'"]]}', {"a": [["]" * 300]]}),
    ("300 arrays beside each other", b'{"a":[' + b"[]," * 300 + b"[]]}", {"a": [[]] * 301}),
    (
        "thousands of the smallest doubles",
        b'{"a":[' + b"5e-324," * 9000 + b"5e-324]}",
        {"a": [5e-324] * 9001},
    ),
    ("many flat objects", b'{"a":[' + b",".join([b"{}"] * 1000) + b"]}", {"a": [{}] * 1000}),
]


@pytest.mark.parametrize(("body", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refuses_with_a_reason(body: bytes, reason: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_object(body)
    assert reason in refused.value.message
    assert refused.value.details == [{"field": "body", "reason": refused.value.message}]


@pytest.mark.parametrize(
    ("body", "expected"), [row[1:] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED]
)
def test_accepts(body: bytes, expected: dict[str, Any]) -> None:
    assert parse_object(body) == expected


def test_accepts_the_depth_that_it_names() -> None:
    depth = MAX_DEPTH - 1
    assert parse_object(b'{"a":' + b"[" * depth + b"]" * depth + b"}")


SHAPES = [row[1] for row in (*REFUSED, *ACCEPTED) if "more than" in str(row[2]) or type(row[2]) is dict]


@pytest.mark.parametrize("number", range(len(SHAPES)))
def test_what_is_too_large_is_refused_without_a_parser(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`oversized` gives the same answer as a walk through the value, where there is one."""

    def parsed(body: bytes) -> None:
        raise AssertionError("parsed")

    body = SHAPES[number]
    refused = bool(oversized(body))
    if refused:
        monkeypatch.setattr(jsontext, "_fast", parsed)
        monkeypatch.setattr(jsontext, "_decode", parsed)
        with pytest.raises(BadRequest):
            parse_object(body)
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(body)
        assert refused == (nodes_of(value) > MAX_NODES or depth_of(value) > MAX_DEPTH)


def nodes_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(nodes_of, inner))


def depth_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


@given(st.binary(max_size=300))
def test_any_bytes_are_measured(body: bytes) -> None:
    assert oversized(body) == ""


@pytest.mark.parametrize(
    ("number", "slow"),
    [
        (b"5e-324", True), (b"1.2345678901234567E-300", True), (b"1e-000310", True), (b"0." + b"0" * 310 + b"1", True),
        (b"9" * 309, True), (b"0." + b"0" * 160 + b"1e-99", True), (b"1.5", False), (b"-1.2e-07", False), (b"1e300", False),
        (b"9" * 40, False), (b'"5e-324"', False), (b'"' + b"9" * 3000 + b'"', False),
    ],
)  # fmt: skip
def test_numbers_that_one_parser_is_slow_at_are_left_to_the_other(number: bytes, slow: bool) -> None:
    body = b'{"a":[' + b",".join([number] * (9_000 if len(number) < 100 else 2_000)) + b"]}"
    assert slow_numbers(body) == slow
    assert parse_object(body) == json.loads(body)


def test_a_reason_never_repeats_the_body() -> None:
    for body in (
        b'{"sk-secret": nul}',
        b'{"sk-secret":1,"sk-secret":2}',
        b'{"sk-secret":"\\ud800"}',
        b'"sk-secret"',
    ):
        with pytest.raises(BadRequest) as refused:
            parse_object(body)
        assert "secret" not in str(refused.value)
        assert "secret" not in str(refused.value.details)


@needs_vectors
def test_every_body_of_the_suite_that_is_not_json_is_refused() -> None:
    bodies = [path.read_bytes() for path in sorted(SUITE.glob("n_*.json"))]
    assert len(bodies) > 150
    for body in bodies:
        for wrapped in (body, b'{"a":' + body + b"}"):
            with pytest.raises(BadRequest):
                parse_object(wrapped)


@needs_vectors
def test_every_json_of_the_suite_is_accepted_but_for_documented_reasons() -> None:
    reasons: dict[str, list[str]] = {}
    accepted = 0
    for path in sorted(SUITE.glob("y_*.json")):
        body = path.read_bytes()
        try:
            assert parse_object(body) == json.loads(body)
            accepted += 1
        except BadRequest as refused:
            reasons.setdefault(refused.message, []).append(path.name)
        if "duplicated_key" not in path.name:
            assert parse_object(b'{"a":' + body + b"}") == {"a": json.loads(body)}
    assert accepted
    assert set(reasons) == {
        "The body must be a JSON object",
        "The body holds an object with the same key twice",
    }
    assert all(
        "duplicated_key" in name for name in reasons["The body holds an object with the same key twice"]
    )


@needs_vectors
def test_what_the_suite_leaves_open_is_accepted_or_refused_but_never_crashes() -> None:
    for path in sorted(SUITE.glob("i_*.json")):
        for body in (path.read_bytes(), b'{"a":' + path.read_bytes() + b"}"):
            with contextlib.suppress(BadRequest):
                json.dumps(parse_object(body), ensure_ascii=False, allow_nan=False).encode()


@needs_vectors
def test_naughty_strings_arrive_as_they_were_sent() -> None:
    strings = json.loads(BLNS.read_bytes())
    assert len(strings) > 400
    for text in strings:
        for ascii_only in (True, False):
            body = json.dumps(
                {"message": text, text: 1} if text != "message" else {text: text}, ensure_ascii=ascii_only
            ).encode()
            assert parse_object(body)["message"] == text


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_a_bad_request(body: bytes) -> None:
    with contextlib.suppress(BadRequest):
        assert isinstance(parse_object(body), dict)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(st.dictionaries(st.text(), json_values), st.booleans())
def test_every_object_comes_back_as_it_was(value: dict[str, Any], ascii_only: bool) -> None:
    assert parse_object(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@pytest.mark.parametrize(
    "body",
    [
        b'{"a" :1,"a":2}', b'{"a":1,"a" :2}', b'{"a"\t:1,"b":{"a":1,"a"\n:2}}', b'{"a":"x\\":y","a":1}',
        b'{"a":[{"b":1,"b":2}]}', b'{"\\u0061":1,"a":2}', b'{"a":":","a":1}', b'{"a":"\\": ","a":1}',
    ],
)  # fmt: skip
def test_a_doubled_key_is_seen_however_it_is_written(body: bytes) -> None:
    with pytest.raises(BadRequest, match="same key twice"):
        parse_object(body)


@pytest.mark.parametrize(
    "body",
    [b'{"a":"b\\":c"}', b'{"a : b":" :","c" : [":",{"d":"\\":"}]}', b'{":":":"}', b'{"a":[[{"b":{}}]]}'],
)
def test_what_looks_doubled_and_is_not_is_taken(body: bytes) -> None:
    assert parse_object(body) == json.loads(body)


TURNS = [{"role": "user", "content": 'if (a[0] > b[1]) { return {x: [1]}; }\n"é" \\ C:\\users'}] * 200


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"messages": TURNS}, separators=(",", ":"), ensure_ascii=False).encode(),
        json.dumps({"messages": TURNS}, ensure_ascii=False).encode(),
        json.dumps({"messages": TURNS}).encode().replace(b"\\u00e9", b"\\u4e2d"),
        json.dumps({"messages": TURNS}, indent=2, ensure_ascii=False).encode().replace(b"\\\\users", b"/"),
    ],
    ids=["JSON.stringify", "json.dumps", "json.dumps, ASCII", "indented"],
)
def test_what_clients_write_needs_no_judge(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs ten times as much (bench/PROFILE.md)."""
    expected = json.loads(body)
    monkeypatch.setattr(jsontext, "_decode", None)
    assert parse_object(body) == expected


def test_no_depth_is_one_too_many_for_a_reason() -> None:
    for spaced in (b"", b" "):
        for depth in range(100, 1100):
            with contextlib.suppress(BadRequest):
                parse_object(b'{"a":' + spaced + b"[" * depth + b"]" * depth + b"}")


def test_values_of_slow_numbers_are_read_by_the_scanner_that_is_quick_with_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def slow(text: bytes) -> None:
        raise AssertionError("14 microseconds a number")

    text = b'{"z":[' + b"5e-324," * 9_000 + b"1]}"
    monkeypatch.setattr(jsontext, "_value", slow)
    assert len(jsontext.value_of(text)["z"]) == 9_001


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 100_000, b'"\xff"', b'{"a":1}x'])
def test_what_is_no_json_has_no_value(text: bytes) -> None:
    with pytest.raises(ValueError):
        jsontext.value_of(text)


def test_a_large_body_of_integers_that_fit_no_double_is_refused_and_of_those_that_do_is_not() -> None:
    """900 of 4,000 digits each took a quarter of a second to be written again, in one piece."""
    long = b'{"x":[' + b",".join([b"9" * 4000] * 900) + b"]}"
    with pytest.raises(BadRequest, match="too many digits"):
        parse_object(long)
    most = b"-" + b"1" * 309
    assert parse_object(b'{"x":[' + b",".join([most] * 200) + b"]}")["x"] == [int(most)] * 200
