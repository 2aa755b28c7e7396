from typing import Any

import msgspec
import pytest

from sluice.wire.upstream_errors import upstream_error


@pytest.mark.parametrize("depth", [1, 9, 500])
def test_bounds_what_it_reads(depth: int) -> None:
    body: Any = {"message": "deep"}
    for _ in range(depth):
        body = {"error": body}
    assert upstream_error(400, {}, msgspec.json.encode(body)).kind == "bad_request"
    wide = [{"message": f"m{n}" * 999} for n in range(2000)]
    assert upstream_error(400, {}, msgspec.json.encode({"errors": wide})).kind == "bad_request"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"detail": [{"loc": ["body", "top_k"], "msg": "Extra inputs"}]}, "top_k: Extra inputs"),
        (
            {"detail": [{"loc": ["body", "messages", 0, "content"], "msg": "field required", "type": "x"}]},
            "messages[0].content: field required",
        ),
        (
            {
                "object": "error",
                "message": {"detail": [{"loc": ["body", n], "msg": "no"} for n in "abcd"]},
                "type": "invalid_request_error",
            },
            "a: no; b: no; c: no",
        ),
        ({"detail": [{"loc": [], "msg": "Bad JSON"}]}, "Bad JSON"),
        ({"detail": [{"loc": ["x"] * 30, "msg": "deep"}]}, "deep"),
        ({"detail": [{"loc": 1, "msg": "odd"}, 1, None]}, "odd"),
    ],
)
def test_the_field_that_a_server_refuses_is_told(body: Any, message: str) -> None:
    for status in (400, 422):
        error = upstream_error(status, {}, msgspec.json.encode(body))
        assert (error.kind, str(error)) == ("bad_request", message)
