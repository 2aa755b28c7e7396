"""GET /admin/usage: usage over a range of days, summed by the requested fields, as JSON or CSV."""

import asyncio
import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec

from sluice.api.admin_requests import AdminRequest, AdminRoute
from sluice.errors import BadRequest, Unavailable
from sluice.frontends import Reply
from sluice.model.events import Usage
from sluice.pricing.prices import BILLION, PriceTable, cost
from sluice.usage import HOUR, KEPT_DAYS, TAG, Figures, Row, Subject, UsageFailed
from sluice.usage.ledger import UsageLedger

BY = ("day", HOUR, *Subject._fields[1:-1])
"""Fields to group by, besides a tag (`tag:NAME`)."""
FIRST, LAST = date(2000, 1, 1), date(2200, 1, 1)
"""Maximum days of a query."""
MAX_ROWS = 50_000
"""Maximum rows of an answer."""
TOP = 5
"""Aliases that the overview names."""
PAUSE = 2_000
"""Rows that are summed in one turn of the event loop, so that calls in flight go on in between."""
NAMES: Mapping[str, str] = {
    "requests": "requests", "errors": "errors", "input": "input_tokens", "output": "output_tokens",
    "cached_input": "cached_input_tokens", "reasoning": "reasoning_tokens", "nanos": "cost_usd", "estimated": "estimated",
    "unpriced": "unpriced_tokens",
}  # fmt: skip
"""The names of figures in answers."""
_TAG_NAME = re.compile(re.escape(TAG) + r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}")
_json = msgspec.json.Encoder().encode


class UsageSums(Figures, gc=False):
    """Figures of several rows. `unpriced`: tokens of models without a known price, which the cost lacks."""

    unpriced: int = 0

    @property
    def dollars(self) -> str | None:
        """The exact cost; None where nothing of it is known."""
        return _dollars(self.nanos) if self.nanos or not self.unpriced else None


SummedRow = tuple[Subject, UsageSums]


class UnpricedTokens:
    """Tells tokens that have cost nothing because their model had no price from those of a model that is free.

    Stores keep no more than sums: a row with tokens and without cost had no price, unless the price that its
    model has now is zero.
    """

    def __init__(self, prices: PriceTable, at: float) -> None:
        self._prices = prices
        self._at = at
        self._free: dict[str, bool] = {}

    def of(self, row: Row) -> int:
        """Returns the row's tokens, if they have no price."""
        subject, figures = row
        tokens = figures.input + figures.output
        return tokens if tokens and not figures.nanos and not self._is_free(subject.model) else 0

    def _is_free(self, label: str) -> bool:
        if label not in self._free:
            upstream, _, model = label.partition("/")
            price = self._prices.price_of(upstream, model, self._at)
            self._free[label] = price is not None and not cost(price, Usage(1, 1))
        return self._free[label]


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

    def __init__(
        self,
        ledger: UsageLedger,
        prices: PriceTable,
        flush: Callable[[], object],
        wall: Callable[[], float],
    ) -> None:
        self._ledger = ledger
        self._prices = prices
        self._flush = flush
        self._wall = wall

    def routes(self) -> list[AdminRoute]:
        return [AdminRoute("GET", "/admin/usage", self._usage)]

    async def _usage(self, request: AdminRequest) -> Reply:
        self._flush()
        accept = request.headers.get("accept", "")
        body, content_type, headers = await usage_of(
            self._ledger, self._prices, request.query, accept, self._wall
        )
        return Reply(body, headers=tuple(headers), content_type=content_type)


async def usage_today(ledger: UsageLedger, prices: PriceTable, wall: Callable[[], float]) -> dict[str, Any]:
    """Returns the sums of all calls since midnight UTC, the number of their aliases, and the sums of the TOP
    of these: those that cost most, then those with the most calls. Raises UsageFailed."""
    now = wall()
    today = datetime.fromtimestamp(now, UTC).date()
    await ledger.flush()
    query = UsageQuery(today, today, ("alias",), csv=False)
    sums = await _summed(ledger, query, UnpricedTokens(prices, now))
    total = _total(sums.values())
    ordered = sorted(sums.items(), key=lambda row: (-row[1].nanos, -row[1].requests, row[0].alias))
    top = [{"alias": subject.alias, **_few(figures)} for subject, figures in ordered[:TOP]]
    return {**_few(total), "aliases": len(sums), "top": top}


def _few(sums: UsageSums) -> dict[str, Any]:
    numbers = _numbers(sums)
    return {name: numbers[name] for name in ("requests", "errors", "cost_usd", "unpriced_tokens")}


async def usage_of(
    ledger: UsageLedger,
    prices: PriceTable,
    query: Mapping[str, str],
    accept: str,
    wall: Callable[[], float],
) -> tuple[bytes, str, list[tuple[str, str]]]:
    """Returns the body, its media type, and further headers. Raises BadRequest, and Unavailable if the store
    does not answer.
    """
    now = wall()
    wanted = usage_query(query, accept, datetime.fromtimestamp(now, UTC).date())
    await ledger.flush()
    try:
        sums = await _summed(ledger, wanted, UnpricedTokens(prices, now))
    except UsageFailed:
        raise Unavailable("The usage cannot be read now") from None
    rows = sorted(sums.items(), key=_place)
    if wanted.csv:
        name = f"usage-{wanted.first}-{wanted.last}.csv"
        headers = [("Content-Disposition", f'attachment; filename="{name}"')]
        return as_csv(wanted, rows), "text/csv; charset=utf-8; header=present", headers
    return as_json(wanted, rows), "application/json", []


def _place(row: SummedRow) -> tuple[str, ...]:
    """The sort key of a row: the day and the dimension's value first."""
    subject = row[0]
    return subject.day, subject.value, *subject[1:-1]


async def _summed(
    ledger: UsageLedger, query: UsageQuery, unpriced: UnpricedTokens
) -> dict[Subject, UsageSums]:
    sums: dict[Subject, UsageSums] = {}
    day = query.first
    while day <= query.last:
        rows = await ledger.store.of_day(day.isoformat(), query.dimension)
        for at in range(0, len(rows), PAUSE):
            add_up(sums, rows[at : at + PAUSE], query.by, unpriced)
            await asyncio.sleep(0)
        day += timedelta(1)
    return sums


def add_up(
    sums: dict[Subject, UsageSums], rows: Sequence[Row], by: Sequence[str], unpriced: UnpricedTokens
) -> None:
    """Adds rows to `sums`, grouped by these fields alone. Raises BadRequest if there are too many groups."""
    kept = {"day", "value", *by} if HOUR in by else {"value", *by}  # an hour belongs to its day
    blank = {name: "" for name in Subject._fields if name not in kept}
    for row in rows:
        subject, figures = row
        key = subject._replace(**blank)
        found = sums.get(key)
        if found is None:
            if len(sums) >= MAX_ROWS:
                raise BadRequest(f"More than {MAX_ROWS} rows: ask for fewer days, or by less", param="by")
            found = sums[key] = UsageSums()
        found.add(figures)
        found.unpriced += unpriced.of(row)


def as_json(query: UsageQuery, rows: Sequence[SummedRow]) -> bytes:
    """Returns the rows and their total as JSON, with costs in US dollars."""
    total = _total(sums for _, sums in rows)
    return _json(
        {
            "from": query.first,
            "to": query.last,
            "by": query.by,
            "rows": [{**_named(query, subject), **_numbers(figures)} for subject, figures in rows],
            "total": _numbers(total),
        }
    )


def _total(all_sums: Iterable[UsageSums]) -> UsageSums:
    total = UsageSums()
    for sums in all_sums:
        total.add(sums)
        total.unpriced += sums.unpriced
    return total


def as_csv(query: UsageQuery, rows: Sequence[SummedRow]) -> bytes:
    """Returns RFC 4180 CSV with a header line. The cost is empty where it is not known. Cells that a
    spreadsheet would take for a formula begin with an apostrophe.
    """
    out = io.StringIO()
    write = csv.writer(out).writerow
    write([*query.by, *NAMES.values()])
    for subject, figures in rows:
        texts = [_harmless(text) for text in _named(query, subject).values()]
        write([*texts, *_each(figures).values()])
    return out.getvalue().encode()


def _named(query: UsageQuery, subject: Subject) -> dict[str, str]:
    return {name: _field(subject, name) for name in query.by}


def _field(subject: Subject, name: str) -> str:
    if name == HOUR:
        return f"{subject.day}T{subject.value}:00Z"
    return str(getattr(subject, "value" if name.startswith(TAG) else name))


def _each(sums: UsageSums) -> dict[str, str | None]:
    """Returns the figures as texts, by their names in answers."""
    return {NAMES[name]: sums.dollars if name == "nanos" else str(getattr(sums, name)) for name in NAMES}


def _numbers(sums: UsageSums) -> dict[str, Any]:
    return {
        name: None if text is None else msgspec.Raw(text.encode()) for name, text in _each(sums).items()
    }  # sums may be longer than 64 bits


def _dollars(nanos: int) -> str:
    """Returns the exact amount, to the nano-dollar."""
    sign, rest = ("-", -nanos) if nanos < 0 else ("", nanos)
    return f"{sign}{rest // BILLION}.{rest % BILLION:09d}"


def _harmless(text: str) -> str:
    """Escapes formulas: https://owasp.org/www-community/attacks/CSV_Injection"""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
