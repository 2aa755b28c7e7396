"""Plain keys: from the configuration, and from a file that is replaced in every way that files are."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sluice.backends.credentials import CredentialFailed, Fixed, key_field_of
from sluice.config.types import Secret
from sluice_plugins.anthropic.backend import Anthropic
from sluice_plugins.credentials.file import File, FileKey, key_in
from sluice_plugins.credentials.static import Static
from sluice_plugins.openai.backend import OpenAI
from tests.plugins.credentials.settings import REQUEST, World


async def test_a_static_key_is_sent_as_its_backend_sends_keys() -> None:
    key = Static(api_key=Secret("sk-1"))
    assert isinstance(key, Fixed)
    assert key.headers(OpenAI()) == (("authorization", "Bearer sk-1"),)
    assert key.headers(Anthropic()) == (("x-api-key", "sk-1"),)
    assert Static(api_key=Secret("sk-1"), header="API-Key").headers(OpenAI()) == (("api-key", "sk-1"),)
    assert Static(api_key=Secret("sk-1"), header="Authorization").headers(Anthropic()) == (
        ("authorization", "Bearer sk-1"),
    )
    assert key.open(World(backend=Anthropic()).setting).sign_now(REQUEST) == b"x-api-key: sk-1\r\n"
    assert "sk-1" not in repr(key)


def test_a_header_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="not a header name"):
        Static(api_key=Secret("k"), header="a b").check(OpenAI(), {})


class Ticks:
    """A sleep that ends when the test says so."""

    def __init__(self) -> None:
        self._due = asyncio.Event()
        self.slept = 0

    async def sleep(self, seconds: float) -> None:
        assert seconds == 1.0
        self.slept += 1
        await self._due.wait()
        self._due.clear()

    async def tick(self) -> None:
        """One look at the file, whole."""
        before = self.slept
        self._due.set()
        while self.slept == before:
            await asyncio.sleep(0)


@asynccontextmanager
async def watched(path: Path, world: World) -> AsyncIterator[tuple[FileKey, Ticks]]:
    ticks = Ticks()
    key = FileKey(str(path), key_field_of(OpenAI()), world.setting, ticks.sleep)
    key.start()
    try:
        while not ticks.slept:
            await asyncio.sleep(0)
        yield key, ticks
    finally:
        await key.close()


def sent(key: FileKey) -> bytes | None:
    return key.sign_now(REQUEST)


async def test_a_file_that_is_replaced_written_to_or_swapped_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("sk-1\n")
    world = World()
    async with watched(path, world) as (key, ticks):
        assert sent(key) == b"authorization: Bearer sk-1\r\n"
        (tmp_path / "new").write_text("sk-2\r\n")
        os.replace(tmp_path / "new", path)
        assert sent(key) == b"authorization: Bearer sk-1\r\n"
        await ticks.tick()
        assert sent(key) == b"authorization: Bearer sk-2\r\n"
        path.write_text("sk-33")
        await ticks.tick()
        assert sent(key) == b"authorization: Bearer sk-33\r\n"
        assert list(key.secrets()) == ["sk-33"]
    assert world.failures == []


async def test_symlinks_are_followed_as_kubernetes_swaps_them(tmp_path: Path) -> None:
    for name, text in (("..1", "sk-1"), ("..2", "sk-2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "key").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "key").symlink_to("..data/key")
    async with watched(tmp_path / "key", World()) as (key, ticks):
        assert sent(key) == b"authorization: Bearer sk-1\r\n"
        (tmp_path / "..tmp").symlink_to("..2")
        os.replace(tmp_path / "..tmp", tmp_path / "..data")
        await ticks.tick()
        assert sent(key) == b"authorization: Bearer sk-2\r\n"


@pytest.mark.parametrize("text", ["", "\n", "two\nlines", "\x00\x01", "é\udcff", "x" * 70_000, "a b\tc"])
async def test_what_is_no_key_leaves_the_last_one_in_use(tmp_path: Path, text: str) -> None:
    path = tmp_path / "key"
    path.write_text("sk-1")
    world = World()
    async with watched(path, world) as (key, ticks):
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
        await ticks.tick()
        await ticks.tick()
        assert sent(key) == b"authorization: Bearer sk-1\r\n"
        assert len(world.failures) == 2
        assert all(str(path) in told and "two" not in told for told in world.failures)
        path.unlink()
        await ticks.tick()
        assert "no such file" in world.failures[-1]
        path.write_text("sk-2")
        await ticks.tick()
        assert sent(key) == b"authorization: Bearer sk-2\r\n"
        assert world.recoveries == 1


async def test_a_file_that_comes_late_is_found_by_who_waits_for_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    async with watched(path, World()) as (key, _):
        assert sent(key) is None
        with pytest.raises(CredentialFailed, match="there is no key in"):
            await key.ready()
        path.write_text("sk-1")
        await key.ready()
        assert sent(key) == b"authorization: Bearer sk-1\r\n"


async def test_a_refused_key_is_renewed_where_the_file_has_another_one(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("sk-1")
    async with watched(path, World()) as (key, _):
        lines = sent(key) or b""
        assert not await key.renewed(lines)
        path.write_text("sk-new")
        assert await asyncio.gather(*(key.renewed(lines) for _ in range(5))) == [True] * 5


def test_check_says_what_is_wrong_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    with pytest.raises(ValueError, match=r"cannot read .*: no such file"):
        File(path=str(path)).check(OpenAI(), {})
    path.write_text("sk-1\n")
    File(path=str(path)).check(OpenAI(), {})
    assert key_in(str(path)) == "sk-1"
