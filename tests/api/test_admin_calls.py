"""Texts of calls on operators' pages: where they are kept, whose, for how long and who may read them."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sluice.config.loader import load
from sluice.identity.keys import digest_of
from sluice.runtime.snapshot import Snapshot
from tests.api.serving import CONFIG, KEY, FakeRequest, Served, served
from tests.api.test_admin_roles import VIEWER

SECRET = "sk-proj-abcdEFGH1234567890"
ASKED = {"messages": [{"role": "user", "content": f"my key is {SECRET}, why?"}], "model": "chat"}
FULL = "log: {content: full, content_chars: 60, hash_key: secret}\n"
WITH_UI = CONFIG.replace(
    "admin: {digest: ",
    f'admin: {{ui: true, keys: [{{id: looks, digest: "{digest_of(VIEWER)}", role: viewer}}], digest: ',
)


def of_key(mode: str) -> str:
    return WITH_UI.replace("default_alias: chat", f"default_alias: chat, log_content: {mode}")


def of_alias(mode: str) -> str:
    return WITH_UI.replace("resumable: true", f"log_content: {mode}")


async def read(there: Served, query: str = "content=true", key: str = KEY) -> FakeRequest:
    request = FakeRequest("GET", f"/admin/calls?{query}", headers={"x-admin-api-key": key}, key="")
    await there.operators(request)
    return request


async def call_of(there: Served, body: object = ASKED) -> dict[str, Any]:
    await there.ask("POST", "/v1/chat/completions", body)
    found: dict[str, Any] = (await read(there)).json["calls"][0]
    return found


async def test_an_operator_reads_masked_texts_of_a_call_without_any_sink() -> None:
    async with served(WITH_UI + FULL) as there:
        call = await call_of(there)
        assert call["content"]["prompt"] == {
            "messages": [{"role": "user", "content": "my key is ***, why?"}],
            "chars": len(f"my key is {SECRET}, why?"),
        }
        assert call["content"]["answer"]["text"].startswith("You said: my key is ***")
        assert "no_content" not in call
        assert SECRET[:12].encode() not in (await read(there)).answer
        streamed = await call_of(there, ASKED | {"stream": True})
        assert streamed["content"] == call["content"]
        [*plain] = (await read(there, "limit=100")).json["calls"]
        assert all("content" not in one and "no_content" not in one for one in plain)


@pytest.mark.parametrize(
    ("config", "has"),
    [
        (WITH_UI, None), (WITH_UI + "log: {content: none}\n", None), (of_key("none") + FULL, None), (of_key("full"), None),
        (of_key("hash") + FULL, "digest"), (of_alias("none") + FULL, None), (of_alias("hash") + FULL, "digest"),
        (of_alias("full"), "messages"), (of_alias("full") + "records: []\n", "messages"),
    ],
)  # fmt: skip
async def test_the_strictest_setting_holds(config: str, has: str | None) -> None:
    async with served(config) as there:
        call = await call_of(there)
        if has is None:
            assert (call["content"], call["no_content"]) == (None, "none")
        else:
            assert has in call["content"]["prompt"]
            assert set(call["content"]) == {"prompt", "answer"}
        kept = there.runtime.state.recent
        assert kept is not None
        assert len(kept) == 1


async def test_what_was_refused_has_no_texts_and_a_limited_call_its_prompt() -> None:
    limited = WITH_UI.replace("tiers: [[{upstream: echo, model: echo}]], resumable: true",
                              "tiers: [[{upstream: echo, model: echo}]], limits: {requests: {rate: 1/h}}")  # fmt: skip
    assert limited != WITH_UI
    async with served(limited + FULL) as there:
        assert (await call_of(there, ASKED | {"model": "nobody"}))["no_content"] == "none"
        assert (await call_of(there))["content"]["answer"]["text"]
        refused = await call_of(there)
        assert refused["status"] == 429
        assert refused["content"]["prompt"]["messages"][0]["content"] == "my key is ***, why?"
        assert refused["content"]["answer"] == {"text": "", "chars": 0}


async def test_a_viewer_is_refused_texts_alone_and_each_reading_is_in_the_log() -> None:
    async with served(WITH_UI + FULL) as there:
        await call_of(there)
        assert (await read(there, "", VIEWER)).status == 200
        assert (await read(there, "content=false", VIEWER)).status == 200
        for query in ("content=true", "content=true&limit=1"):
            refused = await read(there, query, VIEWER)
            assert refused.status == 403
            assert b"GET /admin/calls?content=true needs the role operator" in refused.answer
        for query in ("content=false&content=true", "content=true&content=false"):
            assert b"messages" not in (await read(there, query, VIEWER)).answer
        for query in ("content=1", "content=", "content=TRUE", "content=true&limit=21"):
            assert (await read(there, query)).status == 400
        assert len((await read(there, "limit=200")).json["calls"]) == 1
        actions = [line for line in there.log if line["event"] == "admin_action"]
        read_by = [(line["operator"], line["route"]) for line in actions if line["outcome"] == "done"]
        assert read_by == [("admin", "GET /admin/calls?content=true")]


async def test_sink_and_page_have_the_same_texts_which_are_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "calls.jsonl"
    made: list[str] = []
    monkeypatch.setattr("sluice.sinks.content.redacted", lambda text: made.append(text) or text.upper())
    sink = f'records: [{{name: out, interval: 10ms, file: {{path: "{path}"}}}}]\n'
    async with served(WITH_UI + FULL + sink) as there:
        call = await call_of(there)
    [record] = [json.loads(line) for line in path.read_text().splitlines()]
    assert call["content"] == {name: record[name] for name in ("prompt", "answer")}
    assert len(made) == 2, "one of the prompt, one of the answer"


async def test_only_the_newest_are_kept_and_the_others_say_so() -> None:
    async with served(WITH_UI + FULL) as there:
        recent = there.runtime.state.recent
        assert recent is not None
        for number in range(103):
            await there.ask("POST", "/v1/chat/completions", ASKED | {"user": str(number)})
        calls, query = [], "content=true"
        while True:
            page = (await read(there, query)).json
            calls += page["calls"]
            if page["next"] is None:
                break
            query = f"content=true&before={page['next']}"
        assert [one["number"] for one in calls] == [*range(103, 0, -1)]
        assert [one.get("no_content") for one in calls] == [None] * 100 + ["forgotten"] * 3


async def test_a_reload_begins_and_ends_it(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"

    def other(mode: str) -> Snapshot:
        file.write_text(of_alias(mode))
        return Snapshot(load(str(file)), there.runtime.state)

    async with served(of_alias("none")) as there:
        assert there.runtime.recorder is None
        assert (await call_of(there))["no_content"] == "none"
        async with other("full") as full:
            assert (await call_of(Served(full, io.BytesIO())))["content"]
            assert (await call_of(there))["no_content"] == "none"
            async with other("none") as none:
                assert none.recorder is None
                assert (await call_of(Served(none, io.BytesIO())))["no_content"] == "none"
                calls = (await read(there)).json["calls"]
                assert [bool(one["content"]) for one in calls] == [False, False, True, False]


def test_nothing_of_it_is_imported_where_no_text_is_allowed(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    script = (
        "import asyncio, io, sys\n"
        "from sluice.config.loader import load\n"
        "from sluice.process.serve import Gateway\n"
        "from sluice.telemetry.logs import LogLines\n"
        "async def main():\n"
        "    async with Gateway(load(sys.argv[1]), LogLines(io.BytesIO())): pass\n"
        "asyncio.run(main())\n"
        "print([name for name in sys.modules if name.startswith('sluice.sinks')])"
    )
    ports = 'server: {listen: "127.0.0.1:0", admin_listen: "127.0.0.1:0"}\n'
    for config in (of_key("full"), of_alias("none"), CONFIG + FULL):
        file.write_text(config + ports)
        done = subprocess.run(
            [sys.executable, "-c", script, str(file)], capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout.strip() == "[]"
