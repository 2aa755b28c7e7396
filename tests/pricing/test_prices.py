"""What tokens cost: the arithmetic, the dates, the names, and the file."""

import re
from fractions import Fraction
from pathlib import Path
from zipfile import ZipFile

import pytest

from sluice.config.loader import check, load
from sluice.config.price_file import IN_A_CLONE, bundled_prices, read_prices
from sluice.config.types import LongPrompt, Price
from sluice.errors import ConfigError
from sluice.model.events import Usage
from sluice.pricing.prices import PriceList, PriceTable, cost, nanos, price_at, since_of

ROOT = Path(__file__).parents[2]
PLAIN = Price(input=3, output=15)
CACHED = Price(input=2.5, output=10, cached_input=1.25)
HOUR = Price(input=2, output=10, written_input=2.5, written_input_1h=4)
LONG = Price(
    input=1.25,
    output=10,
    cached_input=0.125,
    long_prompts=(
        LongPrompt(above=1_000_000, input=5, output=20),
        LongPrompt(above=200_000, input=2.5, output=15, cached_input=0.25),
    ),
)
ALL = Price(input=1, output=4, cached_input=0.1, reasoning=6)


@pytest.mark.parametrize(
    ("price", "usage", "expected"),
    [
        (PLAIN, Usage(), 0),
        (PLAIN, Usage(1000, 100), 4_500_000),
        (PLAIN, Usage(1000, 100, cached_input=400, reasoning=50), 4_500_000),
        (CACHED, Usage(1000, 10, cached_input=400), 600 * 2500 + 400 * 1250 + 10 * 10_000),
        (ALL, Usage(1000, 100, cached_input=1000, reasoning=30), 1000 * 100 + 70 * 4000 + 30 * 6000),
        (PLAIN, Usage(1000, 100, written_input=400), 4_500_000),
        (
            Price(input=2, output=10, cached_input=0.2, written_input=2.5),
            Usage(1000, 10, cached_input=500, written_input=300),
            200 * 2000 + 500 * 200 + 300 * 2500 + 10 * 10_000,
        ),
        (HOUR, Usage(1000, 0, written_input=300), 700 * 2000 + 300 * 2500),
        (HOUR, Usage(1000, 0, written_input=300, written_input_1h=200), 700 * 2000 + 100 * 2500 + 200 * 4000),
        (HOUR, Usage(1000, 0, written_input=300, written_input_1h=900), 700 * 2000 + 300 * 4000),
        (
            Price(input=2, output=10, written_input=2.5),
            Usage(1000, 0, written_input=300, written_input_1h=200),
            700 * 2000 + 300 * 2500,
        ),
        (LONG, Usage(200_000, 10), 200_000 * 1250 + 10 * 10_000),
        (LONG, Usage(200_001, 10), 200_001 * 2500 + 10 * 15_000),
        (LONG, Usage(200_001, 10, cached_input=200_000), 2500 + 200_000 * 250 + 10 * 15_000),
        (LONG, Usage(1_000_001, 10, cached_input=1), 1_000_001 * 5000 + 10 * 20_000),
        (Price(input=0, output=0), Usage(10**9, 10**9), 0),
        (Price(input=0.0375, output=0.15), Usage(1, 0), 38),  # 37.5, to the nearest even
        (Price(input=150, output=600), Usage(10**9, 10**9), 750_000 * 10**9),
    ],
)
def test_the_cost_is_exact_to_the_nano_dollar(price: Price, usage: Usage, expected: int) -> None:
    assert nanos(cost(price, usage)) == expected


def test_counts_that_exceed_their_whole_are_paid_beside_it() -> None:
    assert nanos(cost(ALL, Usage(10, 10, cached_input=20, reasoning=300))) == 20 * 100 + 300 * 6000


def test_no_sum_drifts() -> None:
    price, usages = Price(input=0.15, output=0.6), [Usage(n, n % 7) for n in range(1, 1001)]
    exact = sum(Fraction(150) * usage.input + Fraction(600) * usage.output for usage in usages)
    assert sum(nanos(cost(price, usage)) for usage in usages) == exact


# dates


MOVED = {
    "m": (
        Price(input=2, output=2, since="2026-03-01"),
        Price(input=1, output=1),
        Price(input=3, output=3, since="2027-01-01"),
    )
}


@pytest.mark.parametrize(
    ("at", "dollars"),
    [
        (0.0, 1),
        (since_of("2026-03-01") - 0.001, 1),
        (since_of("2026-03-01"), 2),
        (since_of("2027-01-01"), 3),
        (1e11, 3),
    ],
)
def test_the_price_is_that_of_the_time_of_the_call(at: float, dollars: float) -> None:
    price = PriceTable(MOVED).price_of("u", "m", at)
    assert price is not None
    assert price.input == dollars


def test_before_the_first_date_nobody_knows_the_price() -> None:
    table = PriceTable({"m": (Price(input=1, output=1, since="2026-03-01"),)})
    assert table.price_of("u", "m", since_of("2026-02-28")) is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("1970-01-01", 0), ("2024-02-29", 1709164800), ("2026-12-31", 1798675200)]
)
def test_a_date_is_its_midnight_in_utc(text: str, seconds: float) -> None:
    assert since_of(text) == seconds


@pytest.mark.parametrize(
    "text", ["2025-02-29", "2026-13-01", "20260101", "2026-W01-1", "2026-1-1", "tomorrow", ""]
)
def test_what_is_no_date_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        since_of(text)


# names


def priced(dollars: float) -> tuple[Price, ...]:
    return (Price(input=dollars, output=0),)


@pytest.mark.parametrize(
    ("model", "dollars"),
    [
        ("both", 1), ("ours", 3), ("theirs", 4), ("theirs-2026-01-31", 4), ("theirs-20260131", 4), ("ours-20260131", 3),
        ("exact-20260131", 6), ("theirs-latest", None), ("theirs-2026", None), ("-20260131", None), ("other", None),
    ],
)  # fmt: skip
def test_a_name_is_looked_up_from_the_narrowest_to_the_widest(model: str, dollars: float | None) -> None:
    own = {"u/both": priced(1), "both": priced(2), "ours": priced(3)}
    file = {
        "both": priced(9),
        "ours": priced(9),
        "theirs": priced(4),
        "exact": priced(5),
        "exact-20260131": priced(6),
    }
    price = PriceTable(own, lambda: PriceList(file, snapshots=True)).price_of("u", model, 0)
    assert (price.input if price is not None else None) == dollars


def test_snapshots_fall_back_only_where_the_file_says_so() -> None:
    assert PriceTable({}, lambda: PriceList({"m": priced(1)})).prices_of("u", "m-20260131") == ()


def test_the_file_is_read_when_it_is_needed_and_once() -> None:
    read = []

    def reading() -> PriceList:
        read.append(1)
        return PriceList({"m": priced(1)})

    table = PriceTable({}, reading)
    assert not read
    assert table.prices_of("u", "m")
    assert table.prices_of("u", "m")
    assert len(read) == 1


# the file


def test_the_table_that_comes_with_the_gateway_is_sound() -> None:
    found = bundled_prices()
    assert len(found.models) > 80
    assert found.snapshots
    table = PriceTable({}, lambda: found)
    now = since_of("2026-11-25")
    for model in (
        "gpt-4o-mini-2024-07-18",
        "claude-sonnet-4-5-20250929",
        "gemini-2.5-flash",
        "gpt-5-mini",
        "claude-haiku-4-5",
    ):
        price = table.price_of("any", model, now)
        assert price is not None
        assert 0 < price.input <= price.output
    assert [dated.price.input for dated in table.prices_of("openai", "o3")] == [2, 10]


def test_the_bundled_table_is_read_again_only_where_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text("models: {m: {input: 1, output: 1}}")
    monkeypatch.setattr("sluice.config.price_file.BESIDE", path)
    first = bundled_prices()
    assert bundled_prices() is first
    path.write_text("models: {m: {input: 2.5, output: 3}}")
    assert bundled_prices().models["m"][0].input == 2.5


def test_a_bundled_table_that_is_not_there_is_a_named_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sluice.config.price_file.IN_A_CLONE", tmp_path / "gone.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        bundled_prices()


def test_no_cached_input_costs_more_than_fresh_one() -> None:
    for prices in bundled_prices().models.values():
        assert all(price.cached_input is None or price.cached_input <= price.input for price in prices)


def test_the_wheel_carries_the_table(tmp_path: Path) -> None:
    build = pytest.importorskip("hatchling.builders.wheel", reason="hatchling is not installed")
    [wheel] = build.WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with ZipFile(wheel) as archive:
        assert archive.read("sluice/prices.yaml") == IN_A_CLONE.read_bytes()


def problems_of(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    _, report = read_prices(path)
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in sorted(report.problems)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("models: {m: {input: 1}}", ['prices.yaml:1:13: models.m: missing key "output"']),
        ("models: {m: {input: -1, output: 1}}", ["prices.yaml:1:21: models.m.input: must be at least 0"]),
        ("models: {m: {input: 1, output: 1, outptu: 1}}", [r'prices.yaml:1:35: models.m.outptu: unknown key "outptu".*']),
        ("models:\n  m: {input: 1, output: 1, since: 2026-02-30}", ["prices.yaml:2:35: models.m.since: there is no such day"]),
        ("models: {m: [{input: 1, output: 1}, {input: 2, output: 1}]}",
         [r"prices.yaml:1:37: models.m\[1\]: another price holds from the same day on"]),
        ("models: {m: {input: 1, output: 1, long_prompts: [{above: 9, input: 2, output: 2}, {above: 9, input: 3, output: 3}]}}",
         [r"prices.yaml:1:83: models.m.long_prompts\[1\]: other rates hold above the same length"]),
        ("models: {m: {input: 1, output: 1, long_prompts: [{above: 0, input: 2, output: 2}]}}",
         [r"prices.yaml:1:\d+: models.m.long_prompts\[0\].above: must be at least 1"]),
        ("models: {m: []}", ["prices.yaml:1:13: models.m: needs at least one price"]),
        ("modles: {}", ['prices.yaml:1:1: missing key "models"', r'prices.yaml:1:1: modles: unknown key "modles".*']),
        ("models: {m: {input: .inf, output: 1}}", ["prices.yaml:1:21: models.m.input: expected a number"]),
        ("[", [r"prices.yaml:\d+:\d+: not YAML.*"]),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_file_is_named_with_its_place(
    tmp_path: Path, text: str, expected: list[str]
) -> None:
    found = problems_of(tmp_path, text)
    assert len(found) == len(expected), found
    assert all(re.fullmatch(pattern, line) for pattern, line in zip(expected, found, strict=True)), found


# in the configuration

CONFIG = """
keys: [{id: k, digest: "sha256:0000000000000000000000000000000000000000000000000000000000000001"}]
upstreams: {echo: {backend: echo}}
aliases: {chat: {tiers: [[{upstream: echo, model: echo}, {upstream: echo, model: gpt-5-mini}]]}}
"""


def config_at(tmp_path: Path, prices: str) -> str:
    path = tmp_path / "gateway.yaml"
    path.write_text(CONFIG + prices)
    return str(path)


def test_the_configurations_prices_stand_before_the_tables(tmp_path: Path) -> None:
    loaded = load(config_at(tmp_path, "prices: {models: {echo/gpt-5-mini: {input: 7, output: 7}}}"))
    assert loaded.prices.prices_of("echo", "gpt-5-mini")[0].price.input == 7
    assert loaded.prices.prices_of("openai", "gpt-5-mini")[0].price.input == 0.25


def test_prices_of_long_prompts_may_stand_in_the_configuration(tmp_path: Path) -> None:
    rates = "{input: 1, output: 1, long_prompts: [{above: 100, input: 3, output: 9}]}"
    [dated] = load(config_at(tmp_path, f"prices: {{models: {{m: {rates}}}}}")).prices.prices_of("u", "m")
    assert nanos(cost(dated.price, Usage(100, 1))) == 101_000
    assert nanos(cost(dated.price, Usage(101, 1))) == 312_000


def test_a_file_of_ones_own_replaces_the_table(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("models: {echo: {input: 1, output: 2}}")
    loaded = load(config_at(tmp_path, f"prices: {{file: {tmp_path}/own.yaml}}"))
    assert loaded.prices.prices_of("u", "echo")[0].price.output == 2
    assert loaded.prices.prices_of("u", "gpt-5-mini") == ()


def test_problems_of_ones_own_file_are_the_configurations(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("models: {echo: {input: 1}}")
    checked = check(config_at(tmp_path, f"prices: {{file: {tmp_path}/own.yaml}}"))
    assert checked.loaded is None
    assert [str(problem) for problem in checked.problems] == [
        f'{tmp_path}/own.yaml:1:16: models.echo: missing key "output"'
    ]
    [missing] = check(config_at(tmp_path, "prices: {file: /nowhere/prices.yaml}")).problems
    assert "cannot be read" in str(missing)


def test_dates_in_the_configuration_are_checked_too(tmp_path: Path) -> None:
    [problem] = check(
        config_at(tmp_path, "prices: {models: {m: {input: 1, output: 1, since: soon}}}")
    ).problems
    assert problem.path == "prices.models.m.since"


def test_targets_without_a_price_are_warned_of_only_where_they_are_refused(tmp_path: Path) -> None:
    assert not [
        w for w in check(config_at(tmp_path, "prices: {unknown: allow}")).warnings if "price" in w.message
    ]
    [warning] = [
        w for w in check(config_at(tmp_path, "prices: {unknown: refuse}")).warnings if "price" in w.message
    ]
    assert warning.path == "aliases.chat.tiers[0][0].model"
    assert "echo/echo has no price" in warning.message


def test_what_is_no_price_yet_is_none() -> None:
    assert price_at((), 0) is None


@pytest.mark.parametrize(
    ("model", "day", "dollars"),
    [
        ("gemini-4-argon", "2026-11-30", 2),
        ("gemini-4-argon", "2026-12-01", 4),
        ("claude-fable-5", "2026-12-01", 10),
        ("claude-fable-5-2", "2026-12-01", 8),
        ("gpt-6.2-sol", "2026-12-01", 2),
    ],
)
def test_announced_prices_hold_from_their_day_on(model: str, day: str, dollars: float) -> None:
    price = PriceTable({}, bundled_prices).price_of("any", model, since_of(day))
    assert price is not None
    assert price.input == dollars


def test_what_is_written_to_a_cache_costs_a_quarter_more_where_vendors_take_that() -> None:
    for model, prices in bundled_prices().models.items():
        takes = model.startswith(("claude-", "gpt-5.6", "gpt-6"))
        for price in prices:
            assert price.written_input == (pytest.approx(1.25 * price.input) if takes else None)


def test_long_prompts_and_hours_in_the_cache_cost_what_vendors_take_for_them() -> None:
    for model, prices in bundled_prices().models.items():
        for price in prices:
            for rates in (price, *price.long_prompts):
                hour = 2 * rates.input if model.startswith("claude-") else None
                assert rates.written_input_1h == (None if hour is None else pytest.approx(hour)), model
            for rates in price.long_prompts:
                assert rates.input > price.input, model
                assert rates.output > price.output, model
                for name in (
                    "cached_input",
                    "written_input",
                    "reasoning",
                ):  # nothing is taken over: none is forgotten
                    assert (getattr(rates, name) is None) == (getattr(price, name) is None), (model, name)


@pytest.mark.parametrize(
    ("model", "usage", "dollars"),
    [
        ("gemini-2.5-pro", Usage(200_000, 0), 0.25),
        ("gemini-2.5-pro", Usage(400_000, 0), 1.0),
        ("gpt-6-astra", Usage(400_000, 1000), 8.075),
        ("claude-opus-5-5", Usage(100_000, 0, written_input=100_000, written_input_1h=50_000), 0.65),
    ],
)
def test_the_table_knows_of_both(model: str, usage: Usage, dollars: float) -> None:
    price = PriceTable({}, bundled_prices).price_of("any", model, since_of("2026-12-01"))
    assert price is not None
    assert cost(price, usage) == pytest.approx(dollars)
