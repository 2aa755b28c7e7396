"""Clients of Azure OpenAI at the running gateway: what a deployment is asked beside chats, also by its SDK."""

import json

import pytest

from tests.e2e.gateways import KEY, gateway
from tests.e2e.test_embeddings import JSON, ask, says
from tests.e2e.test_forms import HEARD, form, post
from tests.e2e.test_operations import PAINTED, config
from tests.fakes.rawserver import RawServer, sized
from tests.sdks.running import need, printed

SOUND = b"\x00\x01" * 50
OF_SOUND = ("Content-Type", "audio/mpeg")
DEPLOYED = "/openai/deployments/chat"


@pytest.mark.parametrize("named", [{}, {"model": b"another"}])
@pytest.mark.parametrize(
    ("path", "file"),
    [("/audio/transcriptions", "file"), ("/audio/translations", "file"), ("/images/edits", "image")],
)
async def test_a_form_goes_to_the_deployment_of_its_path(
    path: str, file: str, named: dict[str, bytes]
) -> None:
    answer = PAINTED if file == "image" else HEARD
    async with RawServer(says(sized(answer, 200, JSON))) as up, gateway(config(up)) as g:
        asked = await post(g, f"{DEPLOYED}{path}?api-version=2024-10-21", form(**named, **{file: b"1"}))
        assert (asked.status, asked.body) == (200, answer)
        assert (up.requests[0].path, up.requests[0].body) == (f"/v1{path}", form(model=b"m", **{file: b"1"}))
        assert (g.requests[-1]["alias"], g.requests[-1]["frontend"]) == ("chat", "azure")


@pytest.mark.parametrize("path", [DEPLOYED, "/openai/v1"])
async def test_images_and_speech(path: str) -> None:
    fields = {"model": "chat"} if path.endswith("v1") else {}
    answers = says(sized(PAINTED, 200, JSON), sized(SOUND, 200, OF_SOUND))
    async with RawServer(answers) as up, gateway(config(up)) as g:
        painted = await ask(g, {**fields, "prompt": "A sluice"}, f"{path}/images/generations")
        assert (painted.status, painted.body) == (200, PAINTED)
        spoken = await ask(g, {**fields, "input": "Hello", "voice": "alloy"}, f"{path}/audio/speech")
        assert (spoken.status, spoken.body, spoken.headers["content-type"]) == (200, SOUND, "audio/mpeg")
        assert [json.loads(request.body)["model"] for request in up.requests] == ["m", "m"]


async def test_azures_sdk() -> None:
    need("py_openai")
    script = (
        "import json, sys, openai; url, key = json.loads(sys.stdin.read());"
        "c = openai.AzureOpenAI(azure_endpoint=url, api_key=key, api_version='2024-10-21', max_retries=0);"
        "i = c.images.generate(model='chat', prompt='a');"
        "t = c.audio.transcriptions.create(model='chat', file=('a.wav', b'1'));"
        "s = c.audio.speech.create(model='chat', input='a', voice='alloy');"
        "print(json.dumps([i.data[0].b64_json, t.text, len(s.content)]))"
    )
    answers = says(sized(PAINTED, 200, JSON), sized(HEARD, 200, JSON), sized(SOUND, 200, OF_SOUND))
    async with RawServer(answers) as up, gateway(config(up)) as g:
        assert await printed(script, g.url, KEY) == ["AAAA", "Hello", len(SOUND)]
