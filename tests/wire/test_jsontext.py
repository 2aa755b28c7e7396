"""A caller's JSON, strictly: what is no object of RFC 8259 in UTF-8 is refused with a reason that quotes nothing."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.wire import jsontext
from gateway.wire.jsontext import MAX_DEPTH, parse_object

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
    ("a byte order mark", b"\xef\xbb\xbf{}", "byte order mark"),
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
    ("a hundred thousand arrays", b'{"a":' + b"[" * 100_000, "nests more"),
    ("a hundred thousand objects", b'{"a":' * 100_000, "nests more"),
    ("a hundred thousand closed arrays", b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nests more"),
]

ACCEPTED: list[tuple[str, bytes, dict[str, Any]]] = [
    ("empty", b"{}", {}),
    ("blanks around", b' \r\n\t{"a" : 1 }\n', {"a": 1}),
    ("every kind", b'{"a":[1,-0.5,2e3,true,false,null,"",{}]}', {"a": [1, -0.5, 2000.0, True, False, None, "", {}]}),
    ("4300 digits", b'{"a":' + b"9" * 4300 + b"}", {"a": int("9" * 4300)}),
    ("a number too small for a double", b'{"a":1e-999}', {"a": 0.0}),
    ("a pair of surrogates", b'{"a":"\\ud83d\\ude00"}', {"a": "\U0001f600"}),
    ("an escaped backslash before ud800", b'{"a":"\\\\ud800"}', {"a": "\\ud800"}),
    ("non-characters", b'{"a":"\\uffff\xef\xbf\xbf"}', {"a": "\uffff\uffff"}),
    ("a NUL, escaped", b'{"a":"\\u0000"}', {"a": "\0"}),
    ("a byte order mark inside", b'{"a":"\xef\xbb\xbf"}', {"a": "\ufeff"}),
    ("the same key in two objects", b'{"a":{"k":1},"b":{"k":1}}', {"a": {"k": 1}, "b": {"k": 1}}),
    ("brackets in a string", b'{"a":"' + b"[{" * 1000 + b'"}', {"a": "[{" * 1000}),
    ("many flat objects", b'{"a":[' + b",".join([b"{}"] * 1000) + b"]}", {"a": [{}] * 1000}),
]


@pytest.mark.parametrize(("body", "reason"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_refuses_with_a_reason(body: bytes, reason: str) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_object(body)
    assert reason in refused.value.message
    assert refused.value.details == [{"field": "body", "reason": refused.value.message}]


@pytest.mark.parametrize(("body", "expected"), [row[1:] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED])
def test_accepts(body: bytes, expected: dict[str, Any]) -> None:
    assert parse_object(body) == expected


def test_accepts_the_depth_that_it_names() -> None:
    depth = MAX_DEPTH - 1
    assert parse_object(b'{"a":' + b"[" * depth + b"]" * depth + b"}")


def test_a_reason_never_repeats_the_body() -> None:
    for body in (b'{"sk-secret": nul}', b'{"sk-secret":1,"sk-secret":2}', b'{"sk-secret":"\\ud800"}', b'"sk-secret"'):
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
    assert set(reasons) == {"The body must be a JSON object", "The body holds an object with the same key twice"}
    assert all("duplicated_key" in name for name in reasons["The body holds an object with the same key twice"])


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
    "body", [b'{"a":"b\\":c"}', b'{"a : b":" :","c" : [":",{"d":"\\":"}]}', b'{":":":"}', b'{"a":[[{"b":{}}]]}']
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
