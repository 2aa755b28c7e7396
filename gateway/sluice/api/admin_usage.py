"""GET /admin/usage: what was used from one day to another, summed by what is asked for, as JSON or CSV."""

import asyncio
import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec

from sluice.api.admin_requests import AdminRequest, AdminRoute
from sluice.errors import BadRequest, Unavailable
from sluice.frontends import Reply
from sluice.pricing.prices import BILLION
from sluice.usage import KEPT_DAYS, Figures, Row, Subject, UsageFailed
from sluice.usage.ledger import UsageLedger

BY = Subject._fields
FIRST, LAST = date(2000, 1, 1), date(2200, 1, 1)
"""Days that can be asked for."""
MOST = 50_000
"""Rows of one answer."""
PAUSE = 2_000
"""Rows that are summed at a time: calls in flight go on in between."""
NAMES: Mapping[str, str] = {
    "requests": "requests", "errors": "errors", "input": "input_tokens", "output": "output_tokens",
    "cached_input": "cached_input_tokens", "reasoning": "reasoning_tokens", "nanos": "cost_usd", "estimated": "estimated",
}  # fmt: skip
"""Figures as answers name them."""
_json = msgspec.json.Encoder().encode


class UsageQuery(msgspec.Struct, frozen=True):
    """The days from `first` to `last`, both included."""

    first: date
    last: date
    by: tuple[str, ...]
    csv: bool


def usage_query(query: Mapping[str, str], accept: str, today: date) -> UsageQuery:
    """What a query asks for. Without `from` the month so far, without `by` day and model. Raises BadRequest."""
    last = _day(query, "to", today)
    first = _day(query, "from", min(today, last).replace(day=1))
    if not timedelta(0) <= last - first <= timedelta(KEPT_DAYS):
        raise BadRequest(f"from must not be after to, nor more than {KEPT_DAYS} days before it", param="from")
    by = tuple(name.strip() for name in query.get("by", "day,model").split(",") if name.strip())
    if not set(by) <= set(BY):
        raise BadRequest(f"by is a list of {', '.join(BY)}", param="by")
    kind = query.get("format") or ("csv" if accept.partition(";")[0].strip().lower() == "text/csv" else "json")
    if kind not in ("csv", "json"):
        raise BadRequest("format is json or csv", param="format")
    return UsageQuery(first, last, tuple(name for name in BY if name in by), kind == "csv")


def _day(query: Mapping[str, str], name: str, default: date) -> date:
    text = query.get(name, "")
    if not text:
        return default
    try:
        if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            raise ValueError
        day = date.fromisoformat(text)
        if not FIRST <= day <= LAST:
            raise ValueError
        return day
    except ValueError:
        raise BadRequest(f"{name} must be a day such as 2026-11-30", param=name) from None


class AdminUsage:
    """`flush` counts what has ended; `wall` gives seconds since the epoch."""

    def __init__(self, ledger: UsageLedger, flush: Callable[[], object], wall: Callable[[], float]) -> None:
        self._ledger = ledger
        self._flush = flush
        self._wall = wall

    def routes(self) -> list[AdminRoute]:
        return [AdminRoute("GET", "/admin/usage", self._usage)]

    async def _usage(self, request: AdminRequest) -> Reply:
        self._flush()
        accept = request.headers.get("accept", "")
        body, content_type, headers = await usage_of(self._ledger, request.query, accept, self._wall)
        return Reply(body, headers=tuple(headers), content_type=content_type)


async def usage_of(
    ledger: UsageLedger, query: Mapping[str, str], accept: str, wall: Callable[[], float]
) -> tuple[bytes, str, list[tuple[str, str]]]:
    """The body, its type, and further headers. Raises BadRequest, and Unavailable where the store does not answer."""
    wanted = usage_query(query, accept, datetime.fromtimestamp(wall(), UTC).date())
    await ledger.flush()
    try:
        sums = await _summed(ledger, wanted)
    except UsageFailed:
        raise Unavailable("The usage cannot be read now") from None
    rows = sorted(sums.items())
    if wanted.csv:
        name = f"usage-{wanted.first}-{wanted.last}.csv"
        headers = [("Content-Disposition", f'attachment; filename="{name}"')]
        return as_csv(wanted, rows), "text/csv; charset=utf-8; header=present", headers
    return as_json(wanted, rows), "application/json", []


async def _summed(ledger: UsageLedger, query: UsageQuery) -> dict[Subject, Figures]:
    sums: dict[Subject, Figures] = {}
    day = query.first
    while day <= query.last:
        rows = await ledger.store.of_day(day.isoformat())
        for at in range(0, len(rows), PAUSE):
            add_up(sums, rows[at : at + PAUSE], query.by)
            await asyncio.sleep(0)
        day += timedelta(1)
    return sums


def add_up(sums: dict[Subject, Figures], rows: Sequence[Row], by: Sequence[str]) -> None:
    """Adds rows to `sums`, apart by these fields alone. Raises BadRequest where that makes too many."""
    blank = {name: "" for name in BY if name not in by}
    for subject, figures in rows:
        key = subject._replace(**blank)
        found = sums.get(key)
        if found is None:
            if len(sums) >= MOST:
                raise BadRequest(f"More than {MOST} rows: ask for fewer days, or by less", param="by")
            found = sums[key] = Figures()
        found.add(figures)


def as_json(query: UsageQuery, rows: Sequence[Row]) -> bytes:
    """The rows and their total, costs in US dollars."""
    total = Figures()
    for _, figures in rows:
        total.add(figures)
    return _json(
        {
            "from": query.first,
            "to": query.last,
            "by": query.by,
            "rows": [{**_named(query, subject), **_numbers(figures)} for subject, figures in rows],
            "total": _numbers(total),
        }
    )


def as_csv(query: UsageQuery, rows: Sequence[Row]) -> bytes:
    """RFC 4180, with a header. Cells that a spreadsheet would take for a formula begin with an apostrophe."""
    out = io.StringIO()
    write = csv.writer(out).writerow
    write([*query.by, *NAMES.values()])
    for subject, figures in rows:
        texts = [_harmless(text) for text in _named(query, subject).values()]
        write([*texts, *(_dollars(value) if name == "nanos" else value for name, value in _each(figures))])
    return out.getvalue().encode()


def _named(query: UsageQuery, subject: Subject) -> dict[str, str]:
    return {name: getattr(subject, name) for name in query.by}


def _each(figures: Figures) -> list[tuple[str, int]]:
    return [(name, getattr(figures, name)) for name in NAMES]


def _numbers(figures: Figures) -> dict[str, Any]:
    texts = ((name, _dollars(value) if name == "nanos" else str(value)) for name, value in _each(figures))
    return {NAMES[name]: msgspec.Raw(text.encode()) for name, text in texts}  # of any size: sums may be longer than 64 bits


def _dollars(nanos: int) -> str:
    """Exact, to the nano-dollar."""
    sign, rest = ("-", -nanos) if nanos < 0 else ("", nanos)
    return f"{sign}{rest // BILLION}.{rest % BILLION:09d}"


def _harmless(text: str) -> str:
    """https://owasp.org/www-community/attacks/CSV_Injection"""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
