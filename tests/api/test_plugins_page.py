"""The dialect that docs/plugins.md shows is one: it is served here as it stands there."""

import re
from pathlib import Path
from typing import Any

from sluice.frontends import Frontend
from sluice.frontends.registry import conflicts
from tests.api.serving import CONFIG, served

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()


def shown() -> Frontend:
    [code] = [code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "class Ask" in code]
    names: dict[str, Any] = {}
    exec(code, names)
    frontend: Frontend = names["Ask"]()
    return frontend


async def test_it_is_served() -> None:
    frontend = shown()
    assert conflicts([frontend]) == []
    async with served(CONFIG, frontend) as api:
        question = {"question": "tokens=2 gap_us=0"}
        whole = await api.ask("POST", "/ask/chat", question)
        streamed = await api.ask("POST", "/ask/chat?stream=", question)
        assert (whole.status, streamed.status) == (200, 200)
        assert whole.json["answer"] == streamed.answer.decode()
        assert streamed.content_type.startswith("text/plain")
        assert (await api.ask("GET", "/ask")).json == ["chat", "a/b"]
        assert [line["frontend"] for line in api.log if "frontend" in line] == ["ask", "ask"]


async def test_its_errors_are_told_in_its_words() -> None:
    async with served(CONFIG, shown()) as api:
        for path, body, status in (
            ("/ask/chat", {}, 400),
            ("/ask/no", {"question": "x"}, 404),
            ("/ask/a/b", {}, 404),
        ):
            refused = await api.ask("POST", path, body)
            assert refused.status == status
            assert set(refused.json) == {"problem", "code"}
        assert (await api.ask("POST", "/ask/chat", {"question": "x"}, key="nobody")).json[
            "code"
        ] == "unauthorized"
