"""One table says what can be limited; the configuration, the amounts of calls and the API's document agree
with it."""

import typing

import msgspec
import pytest

from sluice.api.openapi import document
from sluice.config.resources import METERED, NAMES, RESOURCES, windows_by_resource
from sluice.config.types import Budget, CallLimits, Limit
from sluice.config.units import Rate
from sluice.limits import Claim
from sluice.limits import Limit as Bucket
from sluice.policies.claims import Amounts

LIMIT = Limit(Rate.parse("60/min"), 5)


def test_each_option_that_is_a_rate_is_a_resource() -> None:
    hints = typing.get_type_hints(CallLimits)
    rates = [name for name, hint in hints.items() if Limit in typing.get_args(hint)]
    assert rates == [resource.name for resource in RESOURCES]
    assert {*hints} - {"weight"} == {*NAMES}


def test_each_metered_resource_is_an_amount_of_calls() -> None:
    assert {field.name for field in msgspec.structs.fields(Amounts)} == {
        resource.name for resource in METERED
    }


@pytest.mark.parametrize("name", [*(resource.name for resource in METERED), "budget"])
def test_claims_are_charged_by_their_own_resource(name: str) -> None:
    field = "money" if name == "budget" else name
    amounts = msgspec.structs.replace(Amounts(), **{field: 7.0})
    assert amounts.of(Claim("key", Bucket(1.0, 1.0), 1.0, "key", name)) == 7.0


def test_a_resource_that_nobody_knows_is_not_charged_as_money() -> None:
    with pytest.raises(KeyError):
        Amounts(1, 2.0).of(Claim("key", Bucket(1.0, 1.0), 1.0, "key", "images"))


def test_the_document_names_all_resources() -> None:
    schemas = document()["components"]["schemas"]
    told = [
        entry["properties"]["resource"]["enum"]
        for entry in _objects(schemas)
        if "enum" in entry.get("properties", {}).get("resource", {})
    ]
    assert told
    assert all(names == [*NAMES] for names in told)


def test_only_what_is_limited_has_windows() -> None:
    limits = CallLimits(tokens=(LIMIT, LIMIT), money=LIMIT, streams=3, budget=Budget(day=1.0))
    assert [(resource.name, len(windows)) for resource, windows in windows_by_resource(limits)] == [
        ("tokens", 2),
        ("money", 1),
    ]


@pytest.mark.parametrize(("name", "text"), [("requests", "5 calls"), ("tokens", "5 tokens"), ("money", "$5")])
def test_amounts_are_told_in_their_unit(name: str, text: str) -> None:
    assert next(resource for resource in RESOURCES if resource.name == name).text(5.0) == text


def _objects(value: object) -> typing.Iterator[dict[str, typing.Any]]:
    match value:
        case dict():
            yield value
            for inner in value.values():
                yield from _objects(inner)
        case list():
            for inner in value:
                yield from _objects(inner)
