"""The usage report: what can be asked, how it is summed and written."""

import csv
import io
from datetime import date

import msgspec
import pytest

from sluice.api import admin_usage as adminusage
from sluice.api.admin_usage import (
    SummedRow,
    UnpricedTokens,
    UsageQuery,
    UsageSums,
    add_up,
    as_csv,
    as_json,
    usage_query,
)
from sluice.config.types import Price
from sluice.errors import BadRequest
from sluice.pricing.prices import PriceTable
from sluice.usage import Figures, Row, Subject

TODAY = date(2026, 11, 25)
DANGEROUS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"]


def row(key: str = "k", tenant: str = "t", nanos: int = 1, day: str = "2026-11-25") -> Row:
    return Subject(day, key, tenant, "chat", "u/m"), Figures(requests=1, nanos=nanos)


def summed(rows: list[Row], *by: str, prices: PriceTable | None = None) -> list[SummedRow]:
    sums: dict[Subject, UsageSums] = {}
    add_up(sums, rows, by, UnpricedTokens(prices or PriceTable({}), 0.0))
    return sorted(sums.items())


def test_without_a_question_it_is_the_month_so_far_by_day_and_model() -> None:
    assert usage_query({}, "*/*", TODAY) == UsageQuery(date(2026, 11, 1), TODAY, ("day", "model"), False)
    assert usage_query({"to": "2026-03-05"}, "", TODAY).first == date(2026, 3, 1)
    assert usage_query({"by": "model, day ,key"}, "", TODAY).by == ("day", "key", "model")
    assert usage_query({}, "text/csv; q=1", TODAY).csv
    assert not usage_query({"format": "json"}, "text/csv", TODAY).csv


@pytest.mark.parametrize("day", ["9999-12-31", "0001-01-01", "9999-12-30", "2026-11-31", "0000-00-00"])
@pytest.mark.parametrize("name", ["from", "to"])
def test_a_day_at_the_end_of_time_is_none(name: str, day: str) -> None:
    for text in ("day", "hour"):
        with pytest.raises(BadRequest, match=f"{name} must be a day"):
            usage_query({name: day, "by": text}, "", TODAY)


def test_rows_are_summed_over_what_was_not_asked_for() -> None:
    rows = [row("a", "t"), row("b", "t", 10), row("a", "u", 100), row("a", "t", 1000, "2026-11-24")]
    assert [(s.key, f.nanos, f.requests) for s, f in summed(rows, "key")] == [("a", 1101, 3), ("b", 10, 1)]
    assert [(s.tenant, f.nanos) for s, f in summed(rows, "tenant")] == [("t", 1011), ("u", 100)]
    assert [f.nanos for _, f in summed(rows)] == [1111]


def test_more_rows_than_an_answer_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adminusage, "MAX_ROWS", 2)
    rows = [row(f"k{number}") for number in range(3)]
    assert summed(rows, "tenant")
    with pytest.raises(BadRequest):
        summed(rows, "key")


@pytest.mark.parametrize("name", DANGEROUS)
def test_no_cell_of_the_csv_is_a_formula(name: str) -> None:
    asked = UsageQuery(TODAY, TODAY, ("key", "tenant"), True)
    text = as_csv(asked, summed([row(name, "a-b=c")], "key", "tenant")).decode()
    [_, cells] = csv.reader(io.StringIO(text, newline=""))
    assert cells[:2] == [f"'{name}", "a-b=c"]


def test_the_csv_is_what_rfc_4180_says() -> None:
    asked = UsageQuery(TODAY, TODAY, ("key",), True)
    assert as_csv(asked, summed([row('a"b,c\nd', nanos=12_000_000_345)], "key")) == (
        b"key,requests,errors,input_tokens,output_tokens,cached_input_tokens,reasoning_tokens,cost_usd,estimated,"
        b"unpriced_tokens\r\n"
        b'"a""b,c\nd",1,0,0,0,0,0,12.000000345,0,0\r\n'
    )


def test_tokens_without_a_known_price_have_no_cost_in_place_of_one_of_zero() -> None:
    def used(alias: str, model: str, nanos: int) -> Row:
        return Subject("2026-11-25", "k", "t", alias, model), Figures(1, 0, 10, 5, nanos=nanos)

    prices = PriceTable({"u/free": [Price(input=0, output=0)], "paid": [Price(input=1, output=2)]})
    rows = [used("free", "u/free", 0), used("paid", "u/paid", 20_000), used("unknown", "u/new", 0)]
    # a price that came after the calls does not say what they cost
    rows += [used("mixed", "u/paid", 20_000), used("mixed", "u/new", 0), used("before", "u/paid", 0)]
    asked = UsageQuery(TODAY, TODAY, ("alias",), False)
    found = summed(rows, "alias", prices=prices)
    answer = msgspec.json.decode(as_json(asked, found))
    assert {one["alias"]: (one["cost_usd"], one["unpriced_tokens"]) for one in answer["rows"]} == {
        "free": (0, 0), "paid": (0.00002, 0), "unknown": (None, 15), "mixed": (0.00002, 15), "before": (None, 15),
    }  # fmt: skip
    assert (answer["total"]["cost_usd"], answer["total"]["unpriced_tokens"]) == (0.00004, 45)
    [header, *cells] = csv.reader(io.StringIO(as_csv(asked, found).decode()))
    cost, unpriced = header.index("cost_usd"), header.index("unpriced_tokens")
    assert {one[0]: (one[cost], one[unpriced]) for one in cells}["unknown"] == ("", "15")
    # calls that used no tokens lack no price
    [(_, refused)] = summed([(Subject("2026-11-25", "k", "t", "chat", ""), Figures(1, 1))], "alias")
    assert (refused.dollars, refused.unpriced) == ("0.000000000", 0)


def test_costs_are_exact_in_json_however_large() -> None:
    asked = UsageQuery(TODAY, TODAY, (), False)
    text = as_json(asked, summed([row(nanos=123_456_789_012_345_678_901)]))
    assert b'"cost_usd":123456789012.345678901' in text
    assert msgspec.json.decode(text)["total"]["requests"] == 1


def test_by_the_hour_it_is_today_and_the_day_before() -> None:
    query = usage_query({"by": "model,hour"}, "", TODAY)
    assert (query.first, query.last, query.by, query.dimension) == (
        date(2026, 11, 24),
        TODAY,
        ("hour", "model"),
        "hour",
    )
    rows = [
        (subject._replace(value=hour), figures)
        for hour in ("23", "09")
        for subject, figures in [row("a"), row("b")]
    ]
    assert [(subject.day, subject.value, f.requests) for subject, f in summed(rows, "hour")] == [
        ("2026-11-25", "09", 2), ("2026-11-25", "23", 2),
    ]  # fmt: skip
    answer = msgspec.json.decode(
        as_json(UsageQuery(TODAY, TODAY, ("hour",), False, "hour"), summed(rows, "hour"))
    )
    assert [one["hour"] for one in answer["rows"]] == ["2026-11-25T09:00Z", "2026-11-25T23:00Z"]


def test_a_tag_is_a_column_of_its_own() -> None:
    query = usage_query({"by": "tag:project, day"}, "", TODAY)
    assert (query.by, query.dimension) == (("day", "tag:project"), "tag:project")
    rows = [(subject._replace(value="=alpha"), figures) for subject, figures in [row("a"), row("b")]]
    text = as_csv(query, summed(rows, "tag:project")).decode()
    assert text.splitlines()[0].startswith("day,tag:project,requests")
    assert text.splitlines()[1].startswith(",'=alpha,2,")


@pytest.mark.parametrize("by", ["hour,tag:a", "tag:a,tag:b", "tag:", "tag:a\nb", "value", "tag:" + "a" * 200])
def test_what_is_not_counted_together_cannot_be_asked_for(by: str) -> None:
    with pytest.raises(BadRequest):
        usage_query({"by": by}, "", TODAY)
