"""Content in the spellings of other APIs, and files by their names, at each upstream that has a word for it."""

import base64
import json
from typing import Any

import pytest

from sluice.errors import BadRequest
from tests.matrix.lanes import UPSTREAMS, parsed, sent

DATA = base64.b64encode(b"hi").decode()
URL = "https://example.com/a.png"


def asked(upstream: str, *parts: dict[str, Any], role: str = "user") -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "q"}] if role != "user" else []
    body = {"model": "m", "messages": [*messages, {"role": role, "content": list(parts)}]}
    return sent(UPSTREAMS[upstream], parsed("openai", json.dumps(body).encode(), stream=True))


@pytest.mark.parametrize(
    "image",
    [
        {"type": "image_url", "image_url": {"url": URL}},
        {"type": "image_url", "image_url": URL},
        {"type": "input_image", "image_url": URL, "detail": "low"},
    ],
)
def test_an_image_may_be_its_url_alone(image: dict[str, Any]) -> None:
    text = {"type": "input_text", "text": "Look"}
    [message] = asked("anthropic", text, image)["messages"]
    assert message["content"] == [
        {"type": "text", "text": "Look"},
        {"type": "image", "source": {"type": "url", "url": URL}},
    ]
    assert asked("openai", text, image)["messages"] == [{"role": "user", "content": [text, image]}]
    with pytest.raises(BadRequest) as caught:
        asked("anthropic", {"type": "image_url", "image_url": "file:///etc/passwd"})
    assert caught.value.param == "messages[0].content[0].image_url.url"


def file(data: str, name: str = "") -> dict[str, Any]:
    return {"type": "file", "file": {"file_data": data} | ({"filename": name} if name else {})}


@pytest.mark.parametrize(
    "given",
    [
        file(DATA, "a.txt"),
        file(DATA, "a.csv"),
        file(f"data:text/markdown;base64,{DATA}", "a.md"),
        file(f"data:application/json;base64,{DATA}"),
        file(f"data:application/ld+json;base64,{DATA}"),
        file(f"data:application/x-yaml;base64,{DATA}", "a.yaml"),
    ],
)
def test_a_file_of_text_is_text_whatever_it_is_called(given: dict[str, Any]) -> None:
    [message] = asked("anthropic", given)["messages"]
    assert message["content"][0]["source"] == {"type": "text", "media_type": "text/plain", "data": "hi"}
    text = {"type": "text", "text": "Sum up"}
    assert asked("cohere", text, given)["documents"][0]["data"]["text"] == "hi"


def test_a_file_of_no_name_is_still_a_pdf() -> None:
    [message] = asked("anthropic", file(DATA))["messages"]
    assert message["content"][0]["source"]["media_type"] == "application/pdf"


@pytest.mark.parametrize(
    ("given", "gemini", "bedrock"),
    [
        ("wav", "audio/wav", "wav"),
        ("audio/mpeg", "audio/mp3", "mp3"),
        ("MP3", "audio/mp3", "mp3"),
        ("audio/x-wav", "audio/wav", "wav"),
        ("flac", "audio/flac", "flac"),
    ],
)
def test_a_format_of_audio_may_be_a_media_type(given: str, gemini: str, bedrock: str) -> None:
    part = {"type": "input_audio", "input_audio": {"data": DATA, "format": given}}
    assert asked("gemini", part)["contents"][0]["parts"][0]["inlineData"]["mimeType"] == gemini
    text = {"type": "text", "text": "Listen"}
    assert asked("bedrock", text, part)["messages"][0]["content"][1]["audio"]["format"] == bedrock


def test_an_assistants_image_is_not_lost_on_the_way_to_responses() -> None:
    with pytest.raises(BadRequest, match="can only be text"):
        asked("responses", {"type": "image_url", "image_url": {"url": URL}}, role="assistant")
