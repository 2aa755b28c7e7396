"""Vendors of known dialects (config/vendors.yaml): defaults for an upstream whose `backend` names one.

A vendor is data: the backend that speaks its dialect, and default entries of the section, which the section's
own entries override. They are merged before types are checked, and have the position at which the section
names its backend, so that a problem with one of them is shown there.
"""

from collections.abc import Callable
from collections.abc import Mapping as Environment
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from sluice.backends.protocol import installed
from sluice.config.interpolation import Expansion
from sluice.config.problems import Path as KeyPath
from sluice.config.problems import Report, suggestion
from sluice.config.validation import as_builtins
from sluice.config.yamltext import Mapping, Node, Scalar, Sequence, TextPosition, YamlEntry, YamlError, read
from sluice.errors import ConfigError

BESIDE = Path(__file__).parents[1] / "vendors.yaml"
IN_A_CLONE = Path(__file__).parents[3] / "config" / "vendors.yaml"

KEY_HEADERS = frozenset({"authorization", "api-key", "x-api-key", "x-goog-api-key"})
"""Headers that carry a key: a section that sets one of them itself needs no other key."""


class Vendor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One vendor.

    `options`: entries of an upstream's section, including the backend's options. `base_url` may contain
    ${VAR}, and is null if each user has another. `api_key_env`: the environment variable that the vendor's
    own tools read. `key_optional`: there may be no key (self-hosted servers). `key_header`: the header in
    which a key is sent as it is, in place of the backend's own way. `probe_path`: the default of
    `probe.path`. `source`: where this was read, at `date`.
    """

    title: str
    source: str
    date: str
    backend: str = "openai"
    base_url: str | None = None
    api_key_env: str | None = None
    key_optional: bool = False
    key_header: str | None = None
    probe_path: str | None = None
    options: dict[str, Any] = {}
    note: str = ""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    vendors: dict[str, Vendor]


@lru_cache(1)
def bundled_vendors() -> dict[str, Vendor]:
    """Returns the vendors by name, read once, at first use. Raises ConfigError if the file is broken."""
    path = BESIDE if BESIDE.is_file() else IN_A_CLONE
    try:
        return msgspec.convert(as_builtins(read(path.read_bytes())), _File).vendors
    except (OSError, YamlError, msgspec.ValidationError) as error:
        raise ConfigError([f"{path}: {error}"]) from None


class Presets:
    """Completes the sections of upstreams that name a vendor. `unknown` counts references that were not
    looked up (`blind`)."""

    def __init__(
        self, report: Report, environ: Environment[str, str], read_file: Callable[[str], str], *, blind: bool
    ) -> None:
        self._report = report
        self._environ = environ
        self._read_file = read_file
        self._blind = blind
        self.unknown = 0

    def completed(self, name: str, node: Mapping, path: KeyPath) -> Mapping | None:
        """Returns the section with the entries of the vendor called `name` below its own; None if there is no
        such vendor."""
        vendor = bundled_vendors().get(name)
        if vendor is None:
            return None
        at = node.entries["backend"].at
        node = beneath(node, _node_of(vendor.options, at))
        added: dict[str, Node] = {"backend": Scalar(at, vendor.backend, vendor.backend)}
        if vendor.base_url is not None and "base_url" not in node.entries:
            added["base_url"] = self._base_url(name, vendor.base_url, path, at)
        if vendor.api_key_env is not None and not _has_key(node):
            key = self._key(vendor, vendor.api_key_env, path, at)
            added |= {"api_key": key} if key is not None else {}
        probe = node.entries.get("probe")
        if vendor.probe_path is not None and probe is not None and isinstance(probe.node, Mapping):
            added["probe"] = beneath(probe.node, _node_of({"path": vendor.probe_path}, at))
        entries = {**node.entries, **{key: YamlEntry(at, value) for key, value in added.items()}}
        return Mapping(node.at, _with_header(entries, vendor.key_header))

    def _base_url(self, name: str, template: str, path: KeyPath, at: TextPosition) -> Node:
        def problem(_: KeyPath, node: Node, message: str) -> None:
            missing = message.partition(": ")[0]  # how a variable is set is not all that can be done here
            self._report.problem(
                (*path, "backend"),
                f'{missing}, which the address of "{name}" needs: set it, or write base_url',
                at,
            )

        expansion = Expansion(self._environ, self._read_file, problem, blind=self._blind)
        expanded = expansion.tree(Scalar(at, template, template))
        self.unknown += expansion.unknown
        return expanded

    def _key(self, vendor: Vendor, variable: str, path: KeyPath, at: TextPosition) -> Node | None:
        if self._blind:
            self.unknown += not vendor.key_optional
            return None
        if value := self._environ.get(variable, ""):
            return Scalar(at, value, value, expanded=True)
        if not vendor.key_optional:
            self._report.problem(
                path,
                f"{vendor.title} needs a key: set the environment variable {variable}, or write api_key",
                at,
            )
        return None


def similar(name: str) -> str:
    """Returns a hint at the backend or vendor whose name is similar to an unknown one; "" if there is none."""
    return suggestion(name, {*bundled_vendors(), *installed()}, cutoff=0.7)


def beneath(node: Mapping, defaults: Mapping) -> Mapping:
    """Returns `node` with those entries of `defaults` that it lacks; the same within mappings that both have."""
    entries = dict(node.entries)
    for key, entry in defaults.entries.items():
        own = entries.get(key)
        if own is None:
            entries[key] = entry
        elif isinstance(own.node, Mapping) and isinstance(entry.node, Mapping):
            entries[key] = YamlEntry(own.at, beneath(own.node, entry.node))
    return Mapping(node.at, entries)


def _with_header(entries: dict[str, YamlEntry], header: str | None) -> dict[str, YamlEntry]:
    """Returns the entries with `api_key` converted into a credential with the vendor's own header, if it has
    one."""
    key = entries.get("api_key")
    if (
        header is None
        or key is None
        or "credentials" in entries
        or (isinstance(key.node, Scalar) and key.node.value is None)
    ):
        return entries
    credential = Mapping(
        key.at, {"api_key": key, "header": YamlEntry(key.at, Scalar(key.at, header, header))}
    )
    return {name: entry for name, entry in entries.items() if name != "api_key"} | {
        "credentials": YamlEntry(key.at, credential)
    }


def _has_key(node: Mapping) -> bool:
    if "api_key" in node.entries or "credentials" in node.entries:
        return True
    headers = node.entries.get("headers")
    return (
        headers is not None
        and isinstance(headers.node, Mapping)
        and not KEY_HEADERS.isdisjoint(map(str.lower, headers.node.entries))
    )


def _node_of(value: Any, at: TextPosition) -> Any:
    """Returns values of the table as if they were in the section, all at one position."""
    match value:
        case dict():
            return Mapping(at, {key: YamlEntry(at, _node_of(item, at)) for key, item in value.items()})
        case list():
            return Sequence(at, tuple(_node_of(item, at) for item in value))
    return Scalar(at, str(value), value, plain=not isinstance(value, str))
