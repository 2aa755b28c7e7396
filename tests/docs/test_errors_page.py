"""docs/errors.md has each error's code with its status, and each header that callers may read."""

import re
from pathlib import Path
from typing import get_args

from sluice.api.cors import EXPOSED
from sluice.errors import GatewayError, UpstreamError, UpstreamErrorKind
from sluice.frontends.statuses import STATUS, status_of

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()


def rows(section: str) -> dict[str, int]:
    """The statuses of codes, as a section's table has them."""
    found: dict[str, int] = {}
    for line in PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0].splitlines():
        if match := re.match(r"\| ((?:`\w+`(?:, )?)+) \| (\d{3}) \|", line):
            found |= {code: int(match[2]) for code in re.findall(r"`(\w+)`", match[1])}
    return found


def test_each_refusal_has_its_status() -> None:
    assert rows("What the gateway refuses") == {kind.code: status for kind, status in STATUS.items()} | {
        GatewayError.code: 500
    }


def test_each_failure_of_a_provider_has_its_status() -> None:
    kinds: tuple[UpstreamErrorKind, ...] = get_args(UpstreamErrorKind)
    assert rows("What providers did") == {kind: status_of(UpstreamError(kind)) for kind in kinds}


def test_each_header_that_callers_may_read_is_there() -> None:
    for header in EXPOSED:
        name = re.sub(r"(?<=x-ratelimit-)(limit|remaining|reset)-(requests|tokens)", "limit-requests", header)
        assert f"`{name}`" in PAGE, header
