"""GET /admin/usage: usage over a range of days, summed by the requested fields, as JSON or CSV."""

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
from sluice.usage import HOUR, KEPT_DAYS, TAG, Figures, Row, Subject, UsageFailed
from sluice.usage.ledger import UsageLedger

BY = ("day", HOUR, *Subject._fields[1:-1])
"""Fields to group by, besides a tag (`tag:NAME`)."""
FIRST, LAST = date(2000, 1, 1), date(2200, 1, 1)
"""Maximum days of a query."""
MOST = 50_000
"""Maximum rows of an answer."""
TOP = 5
"""Aliases that the overview names."""
PAUSE = 2_000
"""Rows that are summed in one turn of the event loop, so that calls in flight go on in between."""
NAMES: Mapping[str, str] = {
    "requests": "requests", "errors": "errors", "input": "input_tokens", "output": "output_tokens",
    "cached_input": "cached_input_tokens", "reasoning": "reasoning_tokens", "nanos": "cost_usd", "estimated": "estimated",
}  # fmt: skip
"""The names of figures in answers."""
_TAG_NAME = re.compile(re.escape(TAG) + r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}")
_json = msgspec.json.Encoder().encode


class UsageQuery(msgspec.Struct, frozen=True):
    """The days from `first` to `last`, both included. `dimension`: "hour", or a tag's; "": neither."""

    first: date
    last: date
    by: tuple[str, ...]
    csv: bool
    dimension: str = ""


def usage_query(query: Mapping[str, str], accept: str, today: date) -> UsageQuery:
    """Parses the query. Defaults: `from` is the first of the month (by the hour: yesterday), `by` is day and
    model. Raises BadRequest.
    """
    by, dimension = _by(query.get("by", "day,model"))
    last = _day(query, "to", today)
    first = min(today, last)
    first = _day(query, "from", first - timedelta(1) if dimension == HOUR else first.replace(day=1))
    if not timedelta(0) <= last - first <= timedelta(KEPT_DAYS):
        raise BadRequest(f"from must not be after to, nor more than {KEPT_DAYS} days before it", param="from")
    kind = query.get("format") or (
        "csv" if accept.partition(";")[0].strip().lower() == "text/csv" else "json"
    )
    if kind not in ("csv", "json"):
        raise BadRequest("format is json or csv", param="format")
    return UsageQuery(first, last, by, kind == "csv", dimension)


def _by(text: str) -> tuple[tuple[str, ...], str]:
    """Returns the fields to group by, in the order of answers, and the dimension among them. Raises
    BadRequest."""
    given = {name.strip() for name in text.split(",") if name.strip()}
    tags = [name for name in given if name.startswith(TAG)]
    if not given <= {*BY, *tags} or any(not _TAG_NAME.fullmatch(tag) for tag in tags):
        raise BadRequest(f"by is a list of {', '.join(BY)} and {TAG}NAME", param="by")
    if len(tags) + (HOUR in given) > 1:
        raise BadRequest("by has hour or one tag, not several of them: each is counted by itself", param="by")
    return tuple(name for name in (*BY, *tags) if name in given), tags[
        0
    ] if tags else HOUR if HOUR in given else ""


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
    """`flush` counts finished calls; `wall` gives seconds since the epoch."""

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


async def usage_today(ledger: UsageLedger, wall: Callable[[], float]) -> dict[str, Any]:
    """Returns the sums of all calls since midnight UTC, the number of their aliases, and the sums of the TOP
    of these: those that cost most, then those with the most calls. Raises UsageFailed."""
    today = datetime.fromtimestamp(wall(), UTC).date()
    await ledger.flush()
    sums = await _summed(ledger, UsageQuery(today, today, ("alias",), csv=False))
    total = Figures()
    for figures in sums.values():
        total.add(figures)
    ordered = sorted(sums.items(), key=lambda row: (-row[1].nanos, -row[1].requests, row[0].alias))
    top = [{"alias": subject.alias, **_few(figures)} for subject, figures in ordered[:TOP]]
    return {**_few(total), "aliases": len(sums), "top": top}


def _few(figures: Figures) -> dict[str, Any]:
    return {
        "requests": figures.requests,
        "errors": figures.errors,
        "cost_usd": msgspec.Raw(_dollars(figures.nanos).encode()),
    }


async def usage_of(
    ledger: UsageLedger, query: Mapping[str, str], accept: str, wall: Callable[[], float]
) -> tuple[bytes, str, list[tuple[str, str]]]:
    """Returns the body, its media type, and further headers. Raises BadRequest, and Unavailable if the store
    does not answer.
    """
    wanted = usage_query(query, accept, datetime.fromtimestamp(wall(), UTC).date())
    await ledger.flush()
    try:
        sums = await _summed(ledger, wanted)
    except UsageFailed:
        raise Unavailable("The usage cannot be read now") from None
    rows = sorted(sums.items(), key=_place)
    if wanted.csv:
        name = f"usage-{wanted.first}-{wanted.last}.csv"
        headers = [("Content-Disposition", f'attachment; filename="{name}"')]
        return as_csv(wanted, rows), "text/csv; charset=utf-8; header=present", headers
    return as_json(wanted, rows), "application/json", []


def _place(row: Row) -> tuple[str, ...]:
    """The sort key of a row: the day and the dimension's value first."""
    subject = row[0]
    return subject.day, subject.value, *subject[1:-1]


async def _summed(ledger: UsageLedger, query: UsageQuery) -> dict[Subject, Figures]:
    sums: dict[Subject, Figures] = {}
    day = query.first
    while day <= query.last:
        rows = await ledger.store.of_day(day.isoformat(), query.dimension)
        for at in range(0, len(rows), PAUSE):
            add_up(sums, rows[at : at + PAUSE], query.by)
            await asyncio.sleep(0)
        day += timedelta(1)
    return sums


def add_up(sums: dict[Subject, Figures], rows: Sequence[Row], by: Sequence[str]) -> None:
    """Adds rows to `sums`, grouped by these fields alone. Raises BadRequest if there are too many groups."""
    kept = {"day", "value", *by} if HOUR in by else {"value", *by}  # an hour belongs to its day
    blank = {name: "" for name in Subject._fields if name not in kept}
    for subject, figures in rows:
        key = subject._replace(**blank)
        found = sums.get(key)
        if found is None:
            if len(sums) >= MOST:
                raise BadRequest(f"More than {MOST} rows: ask for fewer days, or by less", param="by")
            found = sums[key] = Figures()
        found.add(figures)


def as_json(query: UsageQuery, rows: Sequence[Row]) -> bytes:
    """Returns the rows and their total as JSON, with costs in US dollars."""
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
    """Returns RFC 4180 CSV with a header line. Cells that a spreadsheet would take for a formula begin with
    an apostrophe.
    """
    out = io.StringIO()
    write = csv.writer(out).writerow
    write([*query.by, *NAMES.values()])
    for subject, figures in rows:
        texts = [_harmless(text) for text in _named(query, subject).values()]
        write([*texts, *(_dollars(value) if name == "nanos" else value for name, value in _each(figures))])
    return out.getvalue().encode()


def _named(query: UsageQuery, subject: Subject) -> dict[str, str]:
    return {name: _field(subject, name) for name in query.by}


def _field(subject: Subject, name: str) -> str:
    if name == HOUR:
        return f"{subject.day}T{subject.value}:00Z"
    return str(getattr(subject, "value" if name.startswith(TAG) else name))


def _each(figures: Figures) -> list[tuple[str, int]]:
    return [(name, getattr(figures, name)) for name in NAMES]


def _numbers(figures: Figures) -> dict[str, Any]:
    texts = ((name, _dollars(value) if name == "nanos" else str(value)) for name, value in _each(figures))
    return {
        NAMES[name]: msgspec.Raw(text.encode()) for name, text in texts
    }  # sums may be longer than 64 bits


def _dollars(nanos: int) -> str:
    """Returns the exact amount, to the nano-dollar."""
    sign, rest = ("-", -nanos) if nanos < 0 else ("", nanos)
    return f"{sign}{rest // BILLION}.{rest % BILLION:09d}"


def _harmless(text: str) -> str:
    """Escapes formulas: https://owasp.org/www-community/attacks/CSV_Injection"""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
