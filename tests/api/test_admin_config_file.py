"""The configuration's file by the admin API, where no process follows it, and how long it may be."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from sluice.errors import Unavailable
from sluice.runtime.fleet import Fleet, Reload
from tests.api.serving import Served, served
from tests.api.test_operators import WITH_UI, ask

FILE, CHECK = "/admin/config/file", "/admin/config/file/check"
EDITED = WITH_UI.replace("admin: {", "admin: {edit: true, ")


class Supervisor:
    """Raises what `reload` is to raise, or answers with it. `seen`: the texts that it was to follow."""

    def __init__(self, path: Path, answer: Reload | Unavailable) -> None:
        self.path, self.answer = path, answer
        self.seen: list[str] = []

    async def reload(self) -> Reload:
        self.seen.append(self.path.read_text())
        if isinstance(self.answer, Unavailable):
            raise self.answer
        return self.answer


@asynccontextmanager
async def edited(path: Path, answer: Reload | Unavailable) -> AsyncIterator[tuple[Served, Supervisor]]:
    path.write_text(EDITED)
    async with served(EDITED) as there:
        supervisor = Supervisor(path, answer)
        there.runtime.path = str(path)
        there.runtime.state.fleet = cast("Fleet", supervisor)
        yield there, supervisor


async def put(there: Served, text: str) -> tuple[int, Any]:
    hash = (await ask(there, "GET", FILE)).json["hash"]
    request = await ask(there, "PUT", FILE, {"text": text, "hash": hash})
    return request.status, request.json


async def test_a_text_that_nobody_says_to_have_followed_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    for answer, status, followed_again in (
        (Unavailable("The supervisor does not answer"), 503, [EDITED]),  # it may still follow the text
        (Reload("failed", problems=("the gateway is stopping",)), 500, []),
    ):
        async with edited(path, answer) as (there, supervisor):
            found = await put(there, EDITED + "# more\n")
            assert found[0] == status, found
            assert supervisor.seen == [EDITED + "# more\n", *followed_again]
            assert path.read_text() == EDITED


async def test_a_long_file_can_be_checked_and_written(tmp_path: Path) -> None:
    path, text = tmp_path / "gateway.yaml", EDITED + "# a line of remarks\n" * 20_000
    async with edited(path, Reload("ok")) as (there, _):
        assert (await ask(there, "POST", CHECK, {"text": text})).json["ok"]
        assert (await put(there, text))[0] == 200
        assert path.read_text() == text
        assert (await put(there, text + "# a line of remarks\n" * 100_000))[0] == 413
        assert (
            await ask(there, "POST", "/admin/config/check", {"text": text})
        ).status == 413  # for viewers, too
