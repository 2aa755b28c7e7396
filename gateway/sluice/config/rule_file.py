"""Reading the table of what models take (config/models.yaml), which comes with the gateway.

It is read once a process, when the first configuration is made ready: some milliseconds.
"""

from functools import lru_cache
from pathlib import Path

import msgspec

from sluice.config.validation import plain
from sluice.config.yamltext import YamlError, read
from sluice.errors import ConfigError
from sluice.model.rules import Line

BESIDE = Path(__file__).parents[1] / "models.yaml"
IN_A_CLONE = Path(__file__).parents[3] / "config" / "models.yaml"


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    rules: tuple[Line, ...]


@lru_cache(1)
def bundled_rules() -> tuple[Line, ...]:
    """The lines of the table, in the package or in a clone. Raises ConfigError where it is broken."""
    path = BESIDE if BESIDE.is_file() else IN_A_CLONE
    try:
        return msgspec.convert(plain(read(path.read_bytes())), _File).rules
    except (OSError, YamlError, msgspec.ValidationError) as error:
        raise ConfigError([f"{path}: {error}"]) from None
