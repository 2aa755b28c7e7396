"""Which options need a restart: each of the table, and none beside them."""

import msgspec
import pytest

from sluice.config.types import Admin, Config, Key, Limits, Prices
from sluice.config.units import Secret
from sluice.runtime.restart import FIXED, FIXED_AT_TOP, effective, needs_restart

CONFIG = Config(upstreams={}, aliases={})
PATHS = [*FIXED_AT_TOP, *(f"{section}.{option}" for section, options in FIXED.items() for option in options)]


def changed(path: str) -> Config:
    """With another value of this option, of whatever type."""
    section, _, option = path.rpartition(".")
    if not section:
        return msgspec.structs.replace(CONFIG, **{option: "another"})
    return msgspec.structs.replace(
        CONFIG, **{section: msgspec.structs.replace(getattr(CONFIG, section), **{option: "another"})}
    )


@pytest.mark.parametrize("path", PATHS)
def test_each_of_them_is_named_and_keeps_its_value(path: str) -> None:
    assert needs_restart(CONFIG, changed(path)) == [path]
    assert effective(CONFIG, changed(path)) == CONFIG


def test_everything_else_can_be_followed() -> None:
    new = msgspec.structs.replace(
        CONFIG,
        keys=(Key(id="k", digest="sha256:" + "0" * 64),),
        prices=Prices(header=True),
        limits=Limits(output_tokens=5),
        admin=Admin(digest="sha256:" + "0" * 64),
        server=msgspec.structs.replace(CONFIG.server, trusted_proxies=("10.0.0.0/8",), drain_delay=1),
    )
    assert needs_restart(CONFIG, new) == []
    assert effective(CONFIG, new) == new


def test_secrets_are_compared_and_not_named() -> None:
    new = msgspec.structs.replace(CONFIG, resume=Secret("redis://:password@host"))
    assert needs_restart(CONFIG, new) == ["resume"]
