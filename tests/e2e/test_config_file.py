"""The configuration's file, read and written by operators: with one process and with several."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sluice.api.admin_config_file import _replaced
from sluice.errors import Conflict, Unavailable
from tests.e2e.gateway_process import KEY, GatewayProcess, serving
from tests.e2e.test_reload import running
from tests.e2e.test_shown_of_workers import config, shown

EDITABLE = "admin: {edit: true, "
FILE, CHECK = "/admin/config/file", "/admin/config/file/check"


def editable(workers: int) -> str:
    return config(workers).replace("admin: {", EDITABLE)


async def ask(gateway: GatewayProcess, method: str, path: str, body: object = None) -> tuple[int, Any]:
    headers = {"x-admin-api-key": KEY}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.request(method, gateway.admin + path, json=body) as response,
    ):
        return response.status, await response.json()


@pytest.mark.parametrize("workers", [1, 3])
async def test_a_text_is_written_and_followed_by_all(workers: int) -> None:
    with serving(editable(workers)) as gateway:
        await running(gateway, workers)
        _, file = await ask(gateway, "GET", FILE)
        assert file["text"] == gateway.path.read_text()
        text = file["text"] + "  third: {tiers: [[{upstream: echo, model: m}]]}\n"
        status, judged = await ask(gateway, "POST", CHECK, {"text": text})
        assert (status, judged["ok"], judged["needs_restart"]) == (200, True, [])
        assert "+  third: {tiers: [[{upstream: echo, model: m}]]}" in judged["diff"]
        running_text = (await ask(gateway, "GET", "/admin/config"))[1]["text"]
        assert "store" not in running_text  # what workers share stands in no file
        compared = (await ask(gateway, "POST", "/admin/config/check", {}))[1]
        assert (compared["diff"], compared["needs_restart"]) == ([], [])
        gateway.path.chmod(0o640)
        status, done = await ask(gateway, "PUT", FILE, {"text": text, "hash": file["hash"]})
        assert (status, done["result"]) == (200, "ok")
        assert gateway.path.read_text() == text
        assert gateway.path.stat().st_mode & 0o777 == 0o640
        assert [path.name for path in gateway.path.parent.glob(".gateway*")] == []
        for _ in range(2 * workers):
            assert len((await shown(gateway, "/admin/aliases"))["aliases"]) == 3
            found = (await ask(gateway, "GET", "/admin/config"))[1]
            assert [one["result"] for one in found["reloads"]] == ["ok"]
            assert found["editable"]


async def test_what_cannot_be_followed_or_is_not_of_the_file_that_was_seen_is_not_written() -> None:
    with serving(editable(1)) as gateway:
        await running(gateway, 1)
        _, file = await ask(gateway, "GET", FILE)
        before = file["text"]
        for text, hash, status in (
            (before + "  third: {tiers: []}\n", file["hash"], 422),
            (before.replace("workers: 1", "workers: 2"), file["hash"], 409),
            (before + "# more\n", "0" * 12, 409),
            (before.replace("echo}", "${NOT_THERE}}"), file["hash"], 422),
        ):
            found = await ask(gateway, "PUT", FILE, {"text": text, "hash": hash})
            assert (found[0], gateway.path.read_text()) == (status, before), found
        assert (await ask(gateway, "PUT", FILE, {"text": 1, "hash": ""}))[0] == 400
        status, judged = await ask(gateway, "POST", CHECK, {"text": before + "  third: {tiers: []}\n"})
        assert (status, judged["ok"]) == (200, False)
        [place] = judged["places"]
        assert (place["severity"], place["line"]) == ("problem", len(before.splitlines()) + 1)


async def test_without_the_option_there_is_no_file_to_read_or_write() -> None:
    with serving(config(1)) as gateway:
        await running(gateway, 1)
        for method, path in (("GET", FILE), ("PUT", FILE), ("POST", CHECK)):
            assert (await ask(gateway, method, path, {"text": "", "hash": ""}))[0] == 404
        assert not (await ask(gateway, "GET", "/admin/config"))[1]["editable"]


def test_a_link_stays_one_and_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    real, link = tmp_path / "real.yaml", tmp_path / "link.yaml"
    real.write_text("a")
    link.symlink_to(real)
    with pytest.raises(Conflict):
        _replaced(str(link), b"b", "0" * 12)
    assert _replaced(str(link), b"b", "ca978112ca1b") == b"a"
    assert (link.is_symlink(), real.read_text()) == (True, "b")
    with pytest.raises(Unavailable, match="no such file"):
        _replaced(str(tmp_path / "none" / "x"), b"b", "")
