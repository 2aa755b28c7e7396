"""Escapes U+2028, U+2029 and U+0085 in the JSON that the gateway writes. Some readers of lines
(`str.splitlines`, so `iter_lines` of requests and httpx) end a line at them, although neither NDJSON nor
server-sent events do."""


def without_separators(text: bytes) -> bytes:
    """Returns the same JSON values (RFC 8259 7) in UTF-8, with U+2028, U+2029 and U+0085 escaped. In JSON,
    these characters occur in strings only."""
    if text.isascii():
        return text
    text = text.replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")
    return text.replace(b"\xc2\x85", b"\\u0085")
