"""The input of a custom tool's call, out of its arguments, cut anywhere."""

import json

import pytest

from sluice.frontends.responses.custom import InputText

TEXTS = [
    "",
    "plain",
    'a "quote" and \\ back',
    "line\nline\ttab",
    "\U0001f600 und \u00fc \u2028",
    "\ud83d\ude00",
    "}{\\u0041",
]


def fed(pieces: list[str]) -> tuple[str, str]:
    text = InputText()
    told = "".join(text.feed(piece) for piece in pieces)
    return told, text.close()


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("ascii", [True, False])
def test_the_input_is_told_as_it_comes_however_the_arguments_are_cut(text: str, *, ascii: bool) -> None:
    if not ascii and "\ud83d" in text:
        return
    arguments = json.dumps({"input": text}, ensure_ascii=ascii)
    meant = text.encode("utf-16", "surrogatepass").decode("utf-16")
    for cut in range(len(arguments) + 1):
        assert fed([arguments[:cut], arguments[cut:]]) == (meant, "")
    assert fed([*arguments]) == (meant, "")


@pytest.mark.parametrize(
    ("arguments", "input"),
    [
        ('{"patch": "x"}', "x"),
        ('{"a": 1, "input": "x"}', "x"),
        ('"x"', "x"),
        ("just text", "just text"),
        ("", ""),
        ("{}", ""),
        ('{"a": 1, "b": "' + "y" * 100 + '"}', '{"a": 1, "b": "' + "y" * 100 + '"}'),
    ],
)
def test_arguments_of_another_form_are_told_at_their_end(arguments: str, input: str) -> None:
    assert fed([*arguments]) == ("", input)


def test_an_input_that_breaks_off_is_what_came() -> None:
    assert fed(['{"input": "ab\\u00'])[0] == "ab"
    assert fed(['{"input": "ab\\'])[0] == "ab"
