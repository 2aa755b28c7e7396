"""Parts of forms: where they stand, and what is no form."""

import contextlib
from typing import Any

import aiohttp
import pytest
import requests
import urllib3

from sluice.wire.multipart import MAX_PARTS, MAX_VALUE, FormPart, FormScanner, boundary_of, parts_of

FILE = b'--B\r\nContent-Disposition: form-data; name="file"; filename="a"\r\nContent-Type: audio/wav\r\n\r\n\x00\r\n--C\xff\r\n'
MODEL = b"--B\r\ncontent-disposition:form-data; name=model\r\n\r\nchat\r\n"
END = b"--B--\r\n"


def values(body: bytes) -> list[tuple[str, bytes, bool]]:
    return [(part.name, body[part.start : part.end], part.file) for part in parts_of(body, "B")]


@pytest.mark.parametrize(("body", "expected"), [
    (FILE + MODEL + END, [("file", b"\x00\r\n--C\xff", True), ("model", b"chat", False)]),
    (b"preamble\r\n" + MODEL + END + b"epilogue", [("model", b"chat", False)]),
    (b'--B \t\r\nContent-Disposition: form-data; name="a;b"\r\n\r\n\r\n--B--', [("a;b", b"", False)]),
    (b'--B\r\nX: y\r\nContent-Disposition: form-data; filename*=a; name="\xc3\xa4"\r\n\r\n1\r\n--B--', [("\xe4", b"1", True)]),
    (END, []),
])  # fmt: skip
def test_parts_are_found_where_they_stand(body: bytes, expected: list[tuple[str, bytes, bool]]) -> None:
    assert values(body) == expected


@pytest.mark.parametrize("body", [
    b"", b"{}", b"--C--\r\n", MODEL, FILE[:-2], b"--Bx\r\n" + MODEL[5:] + END, b"--B\r\n\r\nvalue\r\n--B--",
    b"--B\r\nContent-Disposition: form-data\r\n\r\n1\r\n--B--",
    b'--B\r\nContent-Disposition: form-data; name="a"; name="b"\r\n\r\n1\r\n--B--',
    b'--B\r\nContent-Disposition: form-data; name="\xff"\r\n\r\n1\r\n--B--', MODEL * (MAX_PARTS + 1) + END,
    b"--B\r\nX: " + b"a" * 9000 + b'\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--B--',
])  # fmt: skip
def test_what_is_no_form_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):
        values(body)


HIDING = [
    b'Content-Disposition: form-data; name="x"\r\nContent-Disposition: form-data; name="model"',
    b'Content-Disposition: form-data; name="x"\r\nContent-Disposition : form-data; name="model"',
    b'Content-Disposition: form-data; name="x"\nContent-Disposition: form-data; name="model"',
    b"Content-Disposition: form-data; name=\"x\"; name*=utf-8''model",
    b'Content-Disposition: form-data; name="x"; NAME*0="mod"; name*1="el"',
    b'Content-Disposition: form-data; name="x"; name ="model"',
    b'Content-Disposition: form-data; name="x"; name= "model"',
    b'Content-Disposition: form-data; name="x"; name *=utf-8\'\'model',
    b'Content-Disposition: form-data; name="x";\x0bname="model"',
    b'Content-Disposition: form-data; name="x" name="model"', b'Content-Disposition: form-data; name="x", name="model"',
    b'Content-Disposition: form-data; name="y"\r\n ; name="model"',
    b'Content-Disposition: form-data; name="y"\r\n\t; name="model"',
    b'Content-Disposition: form-data; name="mod\\el"', b'Content-Disposition: form-data; name="\\model"',
    b'Content-Disposition: form-data; name="x\0"', b'X\r\nContent-Disposition: form-data; name="x"',
    b'Content-Disposition: form-data; filename="\\"; name="model"; a="',
]  # fmt: skip


@pytest.mark.parametrize("head", HIDING)
def test_a_head_that_parsers_read_differently_is_refused(head: bytes) -> None:
    with pytest.raises(ValueError, match="has a part"):
        values(b"--B\r\n" + head + b"\r\n\r\nlarge\r\n" + END)


FILENAMES = [
    "a.wav",
    "ä b.wav",
    'say "a".wav',
    "C:\\sounds\\a.wav",
    "a\\",
    "a; b=c.wav",
    "a'b,c=d%.wav",
    "\u200f\u5b57.wav",
]
ESCAPES = [  # how a file's name is written: browsers, curl before 7.81 and urllib3 before 1.25, RFC 5987 as well
    lambda name: b'filename="%b"' % name.replace('"', "%22").encode(),
    lambda name: b'filename="%b"' % name.replace("\\", "\\\\").replace('"', '\\"').encode(),
    lambda name: b"filename=\"x\"; filename*=utf-8''%b" % name.encode().hex("%").encode(),
]


@pytest.mark.parametrize("name", FILENAMES)
@pytest.mark.parametrize("written", range(len(ESCAPES)))
def test_names_of_files_may_be_written_in_all_ways(name: str, written: int) -> None:
    head = b'Content-Disposition: form-data; name="file"; ' + ESCAPES[written](name)
    assert values(b"--B\r\n" + head + b"\r\nContent-Type: audio/wav\r\n\r\nx\r\n" + END) == [
        ("file", b"x", True)
    ]


async def by_aiohttp(name: str) -> tuple[bytes, str]:
    form = aiohttp.FormData()
    form.add_field("model", "chat")
    form.add_field("file", b"x", filename=name, content_type="audio/wav")
    payload = form()
    return await payload.as_bytes(), payload.content_type


async def by_requests(name: str) -> tuple[bytes, str]:
    request = requests.Request(
        "POST", "http://h", files={"file": (name, b"x")}, data={"model": "chat"}
    ).prepare()
    assert isinstance(request.body, bytes)
    return request.body, request.headers["content-type"]


async def by_urllib3(name: str) -> tuple[bytes, str]:
    return urllib3.encode_multipart_formdata({"model": "chat", "file": (name, b"x", "audio/wav")})


@pytest.mark.parametrize("name", FILENAMES)
@pytest.mark.parametrize("client", [by_aiohttp, by_requests, by_urllib3])
async def test_forms_of_ordinary_clients_are_read(client: Any, name: str) -> None:
    body, kind = await client(name)
    found = [
        (part.name, body[part.start : part.end], part.file) for part in parts_of(body, boundary_of(kind))
    ]
    assert found == [("model", b"chat", False), ("file", b"x", True)]


def test_a_long_head_takes_no_long_time() -> None:
    for filling in (b" ", b'\\";a="', b';a="\\"', b"; a=b", b'"', b";", b"\\"):
        head = b'Content-Disposition: form-data; name="x"; a="' + filling * (8000 // len(filling)) + b"x"
        with contextlib.suppress(ValueError):
            values(b"--B\r\n" + head + b"\r\n\r\n1\r\n" + END)


def test_no_cut_form_is_taken_for_a_whole_one() -> None:
    body = FILE + MODEL + END.rstrip()
    for at in range(len(body)):
        with pytest.raises(ValueError):
            values(body[:at])


@pytest.mark.parametrize(("given", "boundary"), [
    ("multipart/form-data; boundary=B", "B"), ('Multipart/Form-Data; charset=x; BOUNDARY="a b"', "a b"),
    ("multipart/form-data;boundary=----x;a=b", "----x"),
])  # fmt: skip
def test_boundaries_are_read(given: str, boundary: str) -> None:
    assert boundary_of(given) == boundary


@pytest.mark.parametrize("given", [
    "", "multipart/form-data", "multipart/mixed; boundary=B", "multipart/form-data; boundary=",
    'multipart/form-data; boundary="\xe4"',
    "multipart/form-data; boundary=" + "a" * 71,
])  # fmt: skip
def test_what_has_no_boundary_is_refused(given: str) -> None:
    with pytest.raises(ValueError):
        boundary_of(given)


@pytest.mark.parametrize(
    "body", [FILE + MODEL + END, b"preamble\r\n" + MODEL + FILE + END + b"\r\n--B\r\nepilogue"]
)
def test_pieces_make_no_difference(body: bytes) -> None:
    whole = parts_of(body, "B")
    assert [(part.name, part.value) for part in whole if not part.file] == [("model", b"chat")]
    for at in range(len(body) + 1):
        assert fed([body[:at], body[at:]]) == whole
    assert fed([bytes([byte]) for byte in body]) == whole


def fed(pieces: list[bytes]) -> list[FormPart]:
    scanner = FormScanner("B")
    for piece in pieces:
        scanner.feed(piece)
    scanner.close()
    return scanner.parts


def test_what_is_no_form_is_refused_in_pieces_too() -> None:
    for body in (b"--Bx\r\n" + MODEL[5:] + END, MODEL, b"--B\r\n\r\nvalue\r\n--B--", b"{}"):
        with pytest.raises(ValueError):
            fed([bytes([byte]) for byte in body])


def test_little_is_held_and_long_values_are_cut() -> None:
    scanner = FormScanner("B")
    scanner.feed(b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n')
    for _ in range(100):
        scanner.feed(b"x" * 10_000)
        assert len(scanner._held) < 100
    scanner.feed(b"\r\n" + END)
    scanner.close()
    [part] = scanner.parts
    assert (part.end - part.start, len(part.value)) == (1_000_000, MAX_VALUE + 1)
