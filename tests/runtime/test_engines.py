"""Every engine builds what its addresses are accepted for, and nothing else."""

from typing import get_args

import pytest

from sluice.config.types import Config
from sluice.runtime.engines import ENGINES, Engine, configured
from sluice.storage.address import CONVERSATIONS, LIMITS, RESUME, WRITTEN, Kind

STATES = {
    "buckets": LIMITS,
    "journals": RESUME,
    "conversations": CONVERSATIONS,
    "responses": CONVERSATIONS,
    "usage": CONVERSATIONS,
    "keys": CONVERSATIONS,
}
CONFIG = Config(upstreams={}, aliases={})


def test_every_kind_of_store_is_an_engine() -> None:
    assert set(ENGINES) == set(WRITTEN) == set(get_args(Kind))


@pytest.mark.parametrize("state", STATES)
def test_an_engine_builds_what_may_be_configured(state: str) -> None:
    built = {
        kind for kind, engine in ENGINES.items() if getattr(type(engine), state) is not getattr(Engine, state)
    }
    assert built == {*STATES[state]}


@pytest.mark.parametrize(
    ("text", "kind", "path", "shared"),
    [
        ("memory", "memory", "", False),
        ("sqlite:/x.db", "sqlite", "/x.db", False),
        ("redis://a", "redis", "", True),
        ("postgresql://a/b", "postgres", "", True),
    ],
)
def test_an_address_leads_to_its_engine(text: str, kind: Kind, path: str, shared: bool) -> None:
    at = configured(text, CONFIG)
    assert (at.kind, at.path, at.shared, at.prefix) == (kind, path, shared, "sluice")
    assert at.engine is ENGINES[kind]


def test_what_an_engine_cannot_keep_is_said() -> None:
    at = configured("shared:/x", CONFIG)
    with pytest.raises(ValueError, match="shared cannot keep usage"):
        at.engine.usage(at)
