"""Transcriptions, translations and edits of images through the whole gateway: the form as it came, under the
model's name."""

from typing import Any

import aiohttp
import pytest

from tests.e2e.gateways import KEY, Running, gateway
from tests.e2e.test_embeddings import JSON, Asked, says
from tests.e2e.test_operations import BUSY, PAINTED, config
from tests.fakes.rawserver import RawServer, sized
from tests.sdks.running import need, printed

HEARD = b'{"text":"Hello","usage":{"type":"tokens","input_tokens":14,"output_tokens":2,"total_tokens":16}}'
KINDS = {"/v1/audio/transcriptions": "file", "/audio/translations": "file", "/v1/images/edits": "image"}
FORM = 'multipart/form-data; boundary="B"'


def form(**values: bytes) -> bytes:
    parts = [
        b'--B\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
        % (name.encode(), b'; filename="a"' if name in ("file", "image") else b"", value)
        for name, value in values.items()
    ]
    return b"".join(parts) + b"--B--\r\n"


async def post(g: Running, path: str, body: bytes, content_type: str = FORM, key: str = KEY) -> Asked:
    headers = {"authorization": f"Bearer {key}", "content-type": content_type}
    async with (
        aiohttp.ClientSession(g.url) as client,
        client.post(path, data=body, headers=headers) as response,
    ):
        return Asked(response.status, await response.read(), response.headers)


@pytest.mark.parametrize("path", KINDS)
async def test_a_form_is_passed_on_under_the_models_name(path: str) -> None:
    file, answer = KINDS[path], PAINTED if "images" in path else HEARD
    async with RawServer(says(sized(answer, 200, JSON))) as up, gateway(config(up)) as g:
        fields: dict[str, bytes] = {file: b"\x00\r\n--\xff", "prompt": b"x"}
        asked = await post(g, path, form(model=b"chat", **fields))
        assert (asked.status, asked.body, asked.headers["content-type"]) == (200, answer, "application/json")
        [sent] = up.requests
        assert sent.body == form(model=b"m", **fields)
        assert (sent.path, sent.headers["content-type"]) == ("/v1" + path.removeprefix("/v1"), FORM)
        assert sent.headers["authorization"] == "Bearer sk-one"
        assert (await post(g, path, form(**fields))).status == 200
        assert up.requests[-1].body == form(model=b"m", **fields)


async def test_usage_and_cost_are_counted() -> None:
    async with RawServer(says(sized(HEARD, 200, JSON))) as up, gateway(config(up)) as g:
        asked = await post(g, "/v1/audio/transcriptions", form(model=b"chat", file=b"1"))
        assert asked.headers["x-sluice-cost-usd"] == "0.000034000"
        assert (g.requests[-1]["tokens_in"], g.requests[-1]["tokens_out"]) == (14, 2)
        assert (
            g.metric(
                'sluice_operation_requests_total{code="2xx",frontend="openai",operation="transcriptions"}'
            )
            == 1
        )


async def test_another_target_gets_the_same_form() -> None:
    async with (
        RawServer(says(BUSY)) as one,
        RawServer(says(sized(HEARD, 200, JSON))) as two,
        gateway(config(one, two)) as g,
    ):
        asked = await post(g, "/v1/audio/transcriptions", form(file=b"1" * 300_000, model=b"chat"))
        assert (asked.status, asked.headers["x-sluice-target"]) == (200, "two/m")
        assert two.requests[0].body == one.requests[0].body


@pytest.mark.parametrize(("value", "answer", "media_type"), [
    (b"srt", b"1\n00:00:00,000 --> 00:00:01,000\nHello\n", "text/plain; charset=utf-8"),
    (b"verbose_json", b'{"text":"Hello","segments":[]}', "application/json"),
])  # fmt: skip
async def test_other_formats_pass(value: bytes, answer: bytes, media_type: str) -> None:
    async with RawServer(says(sized(answer, 200))) as up, gateway(config(up)) as g:
        asked = await post(
            g, "/v1/audio/transcriptions", form(model=b"chat", file=b"1", response_format=value)
        )
        assert (asked.status, asked.body, asked.headers["content-type"]) == (200, answer, media_type)


async def test_a_streamed_transcript_passes() -> None:
    events = b'data: {"type":"transcript.text.delta","delta":"Hi"}\n\ndata: {"type":"transcript.text.done","text":"Hi"}\n\n'
    async with RawServer(says(sized(events, 200))) as up, gateway(config(up)) as g:
        asked = await post(g, "/v1/audio/transcriptions", form(model=b"chat", file=b"1", stream=b"true"))
        assert (asked.status, asked.body, asked.headers["content-type"]) == (200, events, "text/event-stream")


ODD: list[tuple[str, bytes, str, int]] = [
    ("/v1/audio/transcriptions", form(model=b"chat"), FORM, 400),
    ("/v1/images/edits", form(model=b"chat"), FORM, 400),
    ("/v1/images/edits", form(model=b"chat", image=b"1", stream=b"true"), FORM, 400),
    ("/v1/audio/transcriptions", form(model=b"", file=b"1"), FORM, 400),
    ("/v1/audio/transcriptions", form(model=b"chat", Model=b"b", file=b"1"), FORM, 400),
    ("/v1/audio/transcriptions", form(model=b"chat", file=b"1")[:-9], FORM, 400),
    ("/v1/audio/transcriptions", form(model=b"chat", file=b"1"), "multipart/form-data", 400),
    ("/v1/audio/transcriptions", form(model=b"nobody", file=b"1"), FORM, 404),
    ("/v1/audio/transcriptions", form(model=b"none", file=b"1"), FORM, 400),
    ("/v1/audio/transcriptions", b"{}", "application/json", 415),
]


@pytest.mark.parametrize(("path", "body", "content_type", "status"), ODD)
async def test_what_is_no_such_form_is_refused(
    path: str, body: bytes, content_type: str, status: int
) -> None:
    async with RawServer(says(sized(HEARD, 200, JSON))) as up, gateway(config(up)) as g:
        assert (await post(g, path, body, content_type)).status == status
        assert not up.requests


async def test_the_openai_sdk() -> None:
    need("py_openai")
    script = (
        "import json, sys, openai; url, key = json.loads(sys.stdin.read());"
        "c = openai.OpenAI(base_url=url, api_key=key, max_retries=0);"
        "t = c.audio.transcriptions.create(model='chat', file=('a.wav', b'123'));"
        "l = c.audio.translations.create(model='chat', file=('a.wav', b'123'));"
        "e = c.images.edit(model='chat', image=[('a.png', b'1'), ('b.png', b'2')], prompt='x');"
        "print(json.dumps([t.text, l.text, e.data[0].b64_json]))"
    )
    answers: Any = says(sized(HEARD, 200, JSON), sized(HEARD, 200, JSON), sized(PAINTED, 200, JSON))
    async with RawServer(answers) as up, gateway(config(up)) as g:
        assert await printed(script, f"{g.url}/v1", KEY) == ["Hello", "Hello", "AAAA"]
        assert b'name="model"\r\n\r\nm\r\n' in up.requests[0].body
