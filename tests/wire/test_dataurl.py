"""data: URLs in all their spellings."""

import pytest

from sluice.wire.dataurl import HEAD, Inline, inline_data, normalized_url

PLAIN = "iVBORw0KGgo+/w=="
SPELLINGS = [
    (f"data:image/png;base64,{PLAIN}", "image/png"),
    (f"data:image/PNG;base64,{PLAIN}", "image/png"),
    (f"DATA:image/png;BASE64,{PLAIN}", "image/png"),
    (f"data:image/jpg;base64,{PLAIN}", "image/jpeg"),
    (f"data:image/JPG;base64,{PLAIN}", "image/jpeg"),
    (f"data:image/pjpeg;base64,{PLAIN}", "image/jpeg"),
    (f"data:image/x-png;base64,{PLAIN}", "image/png"),
    (f"data:image/png;charset=utf-8;base64,{PLAIN}", "image/png"),
    (f'data:image/png;name="a.png";charset=utf-8;base64,{PLAIN}', "image/png"),
    ("data:image/webp;base64,iVBORw0K\r\nGgo+/w==\r\n", "image/webp"),
    ("data:image/gif;base64, iVBORw0K Ggo+/w==", "image/gif"),
    ("data:image/png;base64,iVBORw0KGgo-_w==", "image/png"),
    ("data:image/png;base64,iVBORw0KGgo+/w", "image/png"),
    ("data:image/png;base64,iVBORw0KGgo%2B%2Fw%3D%3D", "image/png"),
    (f"data:application/pdf;base64,{PLAIN}", "application/pdf"),
    (f"data:image/svg+xml;base64,{PLAIN}", "image/svg+xml"),
]


@pytest.mark.parametrize(("url", "media_type"), SPELLINGS)
def test_every_spelling_is_read_as_the_plain_one(url: str, media_type: str) -> None:
    assert inline_data(url) == Inline(media_type, PLAIN)
    assert normalized_url(url) == f"data:{media_type};base64,{PLAIN}"


@pytest.mark.parametrize(
    "url",
    ["data:image/png,abc", "data:;base64,aGk=", "data:image/png;base64,", "data:image/png;base64,a b c!", "file:///etc/passwd",
     "data:image/png;base64", "https://x/a,b", "data:image/png;" + "a=b;" * HEAD + "base64,aGk="],
)  # fmt: skip
def test_what_is_none_is_none(url: str) -> None:
    assert inline_data(url) is None
    assert normalized_url(url) == url
