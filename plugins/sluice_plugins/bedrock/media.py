"""Converts images, documents, audio and video for Converse: inline bytes, or objects in S3 buckets. Pure
functions.

https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ContentBlock.html
"""

import re
from collections.abc import Mapping
from typing import Any

from sluice.errors import BadRequest
from sluice.model.chat import Image, Other
from sluice.wire.dataurl import Inline, inline_data, is_http, standard_base64
from sluice_plugins.translation import is_text

Block = dict[str, Any]

IMAGES: Mapping[str, str] = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/gif": "gif",
    "image/webp": "webp",
}
DOCUMENTS: Mapping[str, str] = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
VIDEOS: Mapping[str, str] = {
    "video/x-matroska": "mkv", "video/quicktime": "mov", "video/mp4": "mp4", "video/webm": "webm", "video/x-flv": "flv",
    "video/mpeg": "mpeg", "video/x-ms-wmv": "wmv", "video/3gpp": "three_gp",
}  # fmt: skip
AUDIO = frozenset({"mp3", "opus", "wav", "aac", "flac", "mp4", "ogg", "mkv", "m4a", "pcm", "webm"})
ENDINGS: Mapping[str, str] = {
    "htm": "html",
    "markdown": "md",
    "text": "txt",
    "jpg": "jpeg",
    "3gp": "three_gp",
    "mpg": "mpeg",
}
_NOT_NAMES = re.compile(r"[^A-Za-z0-9\s\-()\[\]]+")
_S3 = "s3://"


def image_block(image: Image) -> Block:
    """Returns the image at a data: or s3:// URL. Raises BadRequest for a URL that the gateway would have to
    fetch."""
    url = image.url
    if url.startswith(_S3):
        return {"image": {"format": _ending(url, IMAGES.values(), "image"), "source": _bucket(url)}}
    if is_http(url):
        raise BadRequest(
            "This model takes images only as data: URLs (or s3:// URLs); it fetches none", param="messages"
        )
    return _inline_image(inline_data(url))


def _inline_image(inline: Inline | None) -> Block:
    if inline is None or (format := IMAGES.get(inline.media_type)) is None:
        raise BadRequest(
            "An image must be a data: URL of a PNG, JPEG, GIF or WebP image in base64", param="messages"
        )
    return {"image": {"format": format, "source": {"bytes": inline.data}}}


def other_block(part: Other) -> Block:
    """Returns the block for a file, audio or video part. The name of a document may be "" or not unique.
    Raises BadRequest."""
    match part.wire:
        case {"file": {"file_data": str(data), **rest}} if data:
            filename = rest.get("filename")
            return _file(data, filename if isinstance(filename, str) else "")
        case {"file": _}:
            raise BadRequest(
                "A file can only be sent to this model with its bytes (file_data)", param="messages"
            )
        case {"input_audio": {"data": str(data), "format": str(given)}} if (
            format := _audio_format(given)
        ) and standard_base64(data):
            return {"audio": {"format": format, "source": {"bytes": standard_base64(data)}}}
        case {"video_url": {"url": str(url)} | str(url)}:
            return _video(url)
        case _:
            raise BadRequest(f"Content of type {part.type!r} cannot be sent to this model", param="messages")


def _audio_format(given: str) -> str:
    """Returns Converse's name of the format, given as name or media type; "" if Converse lacks it."""
    format = given.lower().removeprefix("audio/").removeprefix("x-")
    format = "mp3" if format == "mpeg" else format
    return format if format in AUDIO else ""


def _file(data: str, filename: str) -> Block:
    if is_http(data):
        raise BadRequest(
            "A file can only be sent to this model with its bytes; it fetches none", param="messages"
        )
    title = " ".join(_NOT_NAMES.sub(" ", filename.rpartition(".")[0] or filename).split())[:150].rstrip()
    if data.startswith(_S3):
        return {
            "document": {
                "format": _ending(data, DOCUMENTS.values(), "file"),
                "name": title,
                "source": _bucket(data),
            }
        }
    inline = inline_data(data)
    if inline is not None and inline.media_type in IMAGES:
        return _inline_image(inline)
    if inline is not None and inline.media_type in VIDEOS:
        return _video(data)
    encoded = inline.data if inline is not None else standard_base64(data)
    format = DOCUMENTS.get(inline.media_type) if inline is not None else None
    if format is None:
        format = _known_ending(filename, DOCUMENTS.values()) or ("txt" if _is_text(inline) else None)
    if format is None and inline is None and not filename:
        format = "pdf"
    if format is None or not encoded:
        raise BadRequest(
            "A file can only be a PDF, a text, HTML, CSV or Markdown, or a document of Word or Excel for this model, in base64",
            param="messages",
        )
    return {"document": {"format": format, "name": title, "source": {"bytes": encoded}}}


def _video(url: str) -> Block:
    if url.startswith(_S3):
        return {"video": {"format": _ending(url, VIDEOS.values(), "video"), "source": _bucket(url)}}
    inline = inline_data(url)
    format = VIDEOS.get(inline.media_type) if inline is not None else None
    if inline is None or format is None:
        raise BadRequest(
            "A video must be a data: URL in base64, or an s3:// URL, for this model", param="messages"
        )
    return {"video": {"format": format, "source": {"bytes": inline.data}}}


def _is_text(inline: Inline | None) -> bool:
    return inline is not None and is_text(inline.media_type)


def _bucket(url: str) -> Block:
    return {"s3Location": {"uri": url}}


def _known_ending(name: str, formats: Any) -> str | None:
    ending = name.rpartition(".")[2].lower() if "." in name else ""
    format = ENDINGS.get(ending, ending)
    return format if format in formats else None


def _ending(url: str, formats: Any, what: str) -> str:
    format = _known_ending(url, formats)
    if format is None:
        raise BadRequest(f"The s3:// URL of this {what} must end with its format", param="messages")
    return format
