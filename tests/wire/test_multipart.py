"""Parts of forms: where they stand, and what is no form."""

import pytest

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
