"""Characters that readers of lines take for the end of one."""

import json

import pytest

from sluice.wire.separators import without_separators


@pytest.mark.parametrize(
    "text",
    ["", "plain", "é \u2027\u202a \u0084\u0086 😀", "a\u2028b\u2029c\u0085d", "\u0085" * 3, "\\u2028\u2028"],
)
def test_the_value_is_the_same_and_has_one_line(text: str) -> None:
    written = without_separators(json.dumps({"token": text}, ensure_ascii=False).encode())
    assert json.loads(written) == {"token": text}
    assert len(written.decode().splitlines()) == 1
    if not {"\u2028", "\u2029", "\u0085"} & set(text):
        assert written == json.dumps({"token": text}, ensure_ascii=False).encode()
