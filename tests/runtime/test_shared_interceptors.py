"""Interceptors live as long as some configuration in use names an equal one, and are closed then."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec

from sluice.config.loader import Loaded, load
from sluice.proxy.interceptors import Interceptor, Next
from sluice.proxy.run import CallRun
from tests.e2e.gateways import HEAD, gateway

CONFIG = f"{HEAD}\nupstreams: {{up: {{backend: echo}}}}\naliases: {{chat: {{tiers: [[{{upstream: up, model: m}}]]}}}}\n"


class Watching:
    def __init__(self, fault: bool) -> None:
        self.fault = fault
        self.closed = asyncio.Event()

    async def __call__(self, run: CallRun, next: Next) -> None:
        await next(run)

    async def close(self) -> None:
        self.closed.set()
        if self.fault:
            raise RuntimeError("a plugin's fault")


made: list[Watching] = []


class Watch(msgspec.Struct, frozen=True):
    number: int
    fault: bool = False

    def interceptor(self) -> Interceptor:
        made.append(Watching(self.fault))
        return made[-1]


def loaded(path: Path, *watches: Watch) -> Loaded:
    path.write_text(f"{CONFIG}\nlog: {{level: debug}}\n")
    found: Any = load(str(path))
    return msgspec.structs.replace(found, interceptors={"chat": watches})  # type: ignore[no-any-return]


async def test_an_interceptor_is_kept_over_reloads_and_closed_behind_the_last_configuration(
    tmp_path: Path,
) -> None:
    made.clear()
    async with gateway(CONFIG) as g:
        for watches in ([Watch(1)], [Watch(1), Watch(2)], [Watch(1)]):
            await g.swap(loaded(tmp_path / "g.yaml", *watches))  # type: ignore[union-attr]
        one, two = made
        await asyncio.wait_for(two.closed.wait(), 60)
        assert not one.closed.is_set()
    assert one.closed.is_set()
    assert len(made) == 2


async def test_what_fails_to_close_is_logged_and_hinders_nobody(tmp_path: Path) -> None:
    made.clear()
    async with gateway(CONFIG) as g:
        await g.swap(loaded(tmp_path / "g.yaml", Watch(1, fault=True), Watch(2)))  # type: ignore[union-attr]
        lines = g.log_lines
    assert [watching.closed.is_set() for watching in made] == [True, True]
    assert not [line for line in lines if line["event"] == "crash"]
    assert [line["error"] for line in g.log_lines if line["event"] == "crash"] == ["RuntimeError"]
