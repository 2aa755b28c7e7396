"""Which pages a browser token is taken from; a GET to the page's own origin has no `Origin`."""

from collections.abc import Mapping

import pytest

from tests.api.serving import CONFIG, PAGE, served

ELSEWHERE = "https://elsewhere.example.com"
SAME = {"sec-fetch-site": "same-origin"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"origin": PAGE}, 200),
        ({"origin": ELSEWHERE}, 403),
        ({}, 403),
        ({**SAME, "host": "shop.example.com"}, 200),  # as browsers send it
        ({**SAME, "host": "Shop.Example.com"}, 200),
        ({**SAME, "host": "elsewhere.example.com"}, 403),
        ({**SAME, "host": ""}, 403),
        (SAME, 403),
        ({"sec-fetch-site": "same-site", "host": "shop.example.com"}, 403),
        ({**SAME, "host": "shop.example.com", "origin": ELSEWHERE}, 403),
    ],
)
async def test_a_token_is_taken_from_its_origin_alone(headers: Mapping[str, str], status: int) -> None:
    async with served(CONFIG + f"tokens: {{secret: {'s' * 40}}}\n") as there:
        token = (await there.ask("POST", "/v1/tokens", {"origin": PAGE})).json["token"]
        answer = await there.ask("GET", "/v1/models", key=token, headers=headers)
        assert answer.status == status
        assert ("access-control-allow-origin" in answer.told) == (headers.get("origin") == PAGE)
