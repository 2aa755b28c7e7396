"""A configuration is taken by all workers or by none, whatever they answer, and whoever ends meanwhile."""

from pathlib import Path
from typing import Any

import pytest

from sluice.process.channel import ChannelReply, ChannelRequest, Frames, framed
from sluice.process.rollout import BUILD, Rollout
from sluice.process.rounds import Rounds
from sluice.process.source import ConfigSource, FileWatch
from sluice.runtime.fleet import Reload

TEXT = "upstreams: {echo: {backend: echo}}\naliases: {chat: {tiers: [[{upstream: echo, model: NAME}]]}}\n"


class Log:
    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


class Scene:
    """Workers 1 to 3, who answer when the test says so; time passes when it says so."""

    def __init__(self, folder: Path) -> None:
        self.now = 0.0
        self.path = folder / "gateway.yaml"
        self.path.write_text(TEXT)
        source = ConfigSource(str(self.path))
        loaded = source.load()
        self.rounds = Rounds(lambda: self.now)
        self.sent: dict[int, list[ChannelRequest]] = {1: [], 2: [], 3: []}
        self.rollout = Rollout(
            source,
            loaded,
            loaded,
            self.rounds,
            lambda: {pid: asked.append for pid, asked in self.sent.items()},
            log=Log(),
        )
        self.ended: list[Reload] = []

    def begin(self, text: str = TEXT.replace("NAME", "other")) -> None:
        self.path.write_text(text)
        self.rollout.begin(self.ended.append)

    def answer(self, pid: int, problem: str = "") -> None:
        asked = [one for one in self.sent[pid] if one.id][-1]
        self.rounds.answered(pid, ChannelReply(asked.id, problem=problem))

    def last(self, pid: int) -> str:
        return self.sent[pid][-1].what if self.sent[pid] else ""

    @property
    def model(self) -> str:
        [target] = self.rollout.used.config.aliases["chat"].tiers[0]
        return str(target.model)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_none_takes_it_before_all_have_built_it(scene: Scene) -> None:
    scene.begin()
    for pid in (1, 2, 3):
        assert {scene.last(other) for other in scene.sent} == {"prepare"}
        assert (scene.rollout.running, scene.model) == (True, "NAME")
        scene.answer(pid)
    assert {scene.last(pid) for pid in scene.sent} == {"commit"}
    assert scene.model == "other", "who is started from now on follows it"
    assert scene.ended == []
    for pid in (1, 2, 3):
        scene.answer(pid)
    assert [done.result for done in scene.ended] == ["ok"]
    assert {scene.last(pid) for pid in scene.sent} == {"following"}
    assert scene.rollout.status.counts == {"ok": 1}


def test_where_one_cannot_build_it_all_throw_it_away(scene: Scene) -> None:
    scene.begin()
    scene.answer(1)
    scene.answer(3)
    scene.answer(2, "no such thing")
    assert [(done.result, done.problems) for done in scene.ended] == [("failed", ("no such thing",))]
    assert [[asked.what for asked in scene.sent[pid]] for pid in (1, 2, 3)] == [
        ["prepare", "discard", "following"]
    ] * 3
    assert scene.model == "NAME"


def test_where_one_does_not_answer_all_throw_it_away(scene: Scene) -> None:
    scene.begin()
    scene.answer(1)
    scene.answer(2)
    scene.now = BUILD
    scene.rounds.tick()
    assert [done.problems for done in scene.ended] == [("a worker did not answer in time",)]
    assert scene.model == "NAME"
    scene.answer(3)  # too late


@pytest.mark.parametrize("when", ["building", "taking"])
def test_who_ends_meanwhile_is_not_waited_for(scene: Scene, when: str) -> None:
    scene.begin()
    if when == "taking":
        for pid in (1, 2, 3):
            scene.answer(pid)
    scene.answer(1)
    scene.answer(2)
    del scene.sent[3]
    scene.rounds.gone(3)
    if when == "building":
        scene.answer(1)
        scene.answer(2)
    assert [done.result for done in scene.ended] == ["ok"]
    assert scene.model == "other"


def test_who_asks_while_it_is_under_way_gets_the_next_one(scene: Scene) -> None:
    scene.begin()
    scene.begin("broken: [")
    scene.begin("broken: [")
    for _ in range(2):
        for pid in (1, 2, 3):
            scene.answer(pid)
    assert [done.result for done in scene.ended] == ["ok", "invalid", "invalid"]
    assert scene.rollout.status.counts == {"ok": 1, "invalid": 1}, "one for both"
    assert (scene.model, scene.rollout.running) == ("other", False)


def test_a_file_with_a_mistake_asks_nobody_anything(scene: Scene) -> None:
    scene.begin(TEXT + "server: {listen: '127.0.0.1:1', workers: 7}\n")
    [done] = scene.ended
    assert (done.result, done.needs_restart) == ("needs_restart", ("server.listen", "server.workers"))
    scene.begin("unknown: 1\n")
    assert scene.ended[-1].result == "invalid"
    assert {asked.what for asked in scene.sent[1]} == {"following"}
    assert scene.rollout.status.hash != scene.ended[-1].hash


def test_messages_come_out_as_they_went_in_however_they_are_cut() -> None:
    messages = [
        ChannelRequest(1, "prepare", b"\0" * 70_000),
        ChannelReply(1),
        ChannelRequest(0, "x", {"a": [1, None, "ü"]}),
        ChannelReply(2, b"", "why"),
    ]
    data = b"".join(part for message in messages for part in framed(message))
    for size in (1, 3, 4096, len(data)):
        frames = Frames()
        assert [
            found for at in range(0, len(data), size) for found in frames.feed(data[at : at + size])
        ] == messages


def test_a_file_is_read_when_it_has_stopped_changing() -> None:
    old, half, new = (1, 1, 1, 1), (1, 1, 2, 1), (1, 1, 3, 2)
    watch = FileWatch(old)
    looks = [old, half, new, new, new, None, None, new, new, old, old, old]
    assert [watch.look(state) for state in looks] == [False] * 3 + [True] + [False] * 6 + [True, False]
