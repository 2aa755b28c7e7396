"""The chat widget's file and the demo's routes, without sockets; its size."""

import gzip
import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from sluice.config.loader import load_mapping
from sluice.errors import ConfigError
from sluice.version import VERSION
from tests.api.serving import CONFIG, KEY, PAGE, FakeRequest, served

WIDGET = Path(__file__).parents[2] / "gateway/sluice/embed/chat-widget.js"
WITH_DEMO = CONFIG + f"server: {{demo: test}}\ntokens: {{secret: {'s' * 40}}}\n"


async def test_the_widget_is_served_to_any_page_and_revalidated() -> None:
    async with served() as there:
        answer = await there.ask("GET", "/widget/chat-widget.js", key="")
        assert answer.status == 200
        assert answer.answer == WIDGET.read_bytes()
        assert answer.told["access-control-allow-origin"] == "*"
        assert answer.told["cache-control"].startswith("public, max-age=")
        again = await there.ask(
            "GET", "/widget/chat-widget.js", headers={"if-none-match": answer.told["etag"]}
        )
        assert (again.status, again.answer) == (304, b"")


async def test_there_is_none_without_its_dialect_and_no_demo_unless_asked_for() -> None:
    async with served(CONFIG + "server: {frontends: [openai]}\n") as there:
        assert (await there.ask("GET", "/widget/chat-widget.js")).status == 404
    async with served() as there:
        for path in ("/demo", "/demo/demo.js", "/demo/token"):
            assert (await there.ask("GET", path)).status == 404


def test_it_is_small_and_reads_nothing_as_html() -> None:
    source = WIDGET.read_text()
    assert len(gzip.compress(source.encode())) < 30_000
    for sink in (
        ".innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "import(",
    ):
        assert sink not in source


def test_it_is_a_package_that_bundlers_and_servers_can_import(tmp_path: Path) -> None:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    environ = {
        **os.environ,
        "npm_config_cache": str(tmp_path / "cache"),
        "npm_config_update_notifier": "false",
    }
    packed = subprocess.run(
        ["npm", "pack", "--json", "--offline", "--pack-destination", tmp_path, WIDGET.parent],
        capture_output=True, text=True, check=True, timeout=60, env=environ, cwd=tmp_path,
    )  # fmt: skip
    [package] = json.loads(packed.stdout)
    assert (package["name"], package["version"]) == ("@sluice/chat-widget", VERSION)
    assert sorted(one["path"] for one in package["files"]) == [
        "chat-widget.d.ts", "chat-widget.js", "package.json",
    ]  # fmt: skip
    (modules := tmp_path / "node_modules/@sluice/chat-widget").mkdir(parents=True)
    with tarfile.open(tmp_path / package["filename"]) as archive:
        for member in archive.getmembers():
            content = archive.extractfile(member)
            assert content is not None
            (modules / Path(member.name).name).write_bytes(content.read())
    (tmp_path / "page.mjs").write_text('await import("@sluice/chat-widget"); console.log("imported")')
    done = subprocess.run(
        ["node", "page.mjs"], capture_output=True, text=True, check=False, timeout=60, cwd=tmp_path
    )
    assert done.stdout.strip() == "imported", done.stderr


def test_the_types_have_each_attribute_of_its_page() -> None:
    page = (WIDGET.parents[3] / "docs/widget.md").read_text()
    types = (WIDGET.parent / "chat-widget.d.ts").read_text()
    described = set(re.findall(r"`(data-[a-z-]+)", page.partition("| attribute")[2].partition("\n\n")[0]))
    assert set(re.findall(r'^  "(data-[a-z-]+)"', types, re.MULTILINE)) == described


async def test_the_demo_gets_a_token_for_its_origin_alone() -> None:
    async with served(WITH_DEMO) as there:
        page = await there.ask("GET", "/demo", key="")
        assert page.status == 200
        assert b"sk-" not in page.answer
        assert (await there.ask("GET", "/demo/demo.js", key="")).status == 200
        assert (await there.ask("GET", "/demo/chat.yaml", key="")).status == 404
        token = await there.ask("POST", "/demo/token", {}, key="", headers={"origin": PAGE})
        assert token.status == 200
        chat = FakeRequest(
            "POST", "/v1/chat", {"sessionId": "s", "message": "hi"}, {"origin": PAGE}, key=token.json["token"]
        )
        await there.clients(chat)
        assert chat.status == 200
        for origin in ("https://other.example.com", ""):
            assert (
                await there.ask("POST", "/demo/token", {}, key="", headers={"origin": origin})
            ).status == 403
        assert KEY not in str(there.log)


def test_a_demo_that_cannot_work_is_found_by_check() -> None:
    sections = {
        "upstreams": {"echo": {"backend": "echo"}},
        "aliases": {"chat": {"tiers": [[{"upstream": "echo", "model": "m"}]]}},
        "server": {"demo": "page"},
    }
    key = {"id": "page", "digest": "sha256:" + "0" * 64, "default_alias": "chat"}
    for keys, expected in (([], "no key has the id"), ([key], "tokens.secret")):
        with pytest.raises(ConfigError, match=expected):
            load_mapping({**sections, "keys": keys})


def test_each_language_has_every_text() -> None:
    source = WIDGET.read_text()
    names = re.findall(r"(\w+): \"", source.partition("const TEXTS = {")[2].partition("};")[0])
    lines = source.partition("const LANGUAGES = {")[2].partition("\n  };")[0].strip().splitlines()
    languages = {
        language.strip(' "'): json.loads(texts.strip().removesuffix(","))
        for language, _, texts in (line.partition(":") for line in lines)
    }
    assert len(languages) == 16
    assert [*languages] == sorted(languages)
    for language, texts in languages.items():
        assert len(texts) == len(names), language
        assert all(text == text.strip() and text for text in texts), language
        assert ["{n}" in text for text in texts] == [name == "wait" for name in names], language
    demo = (WIDGET.parent / "demo.html").read_text().partition('id="language"')[2].partition("</select>")[0]
    assert {tag.lower() for tag in re.findall(r'value="([\w-]+)"', demo)} == {"en", *languages}
