"""Reads the configuration: bytes -> YAML with positions -> ${VAR} expanded -> types -> checks across
sections.

Every stage reports all problems that it finds, so one run of `sluice check` names every mistake. An
upstream's section is read by two types: its own fields by `Upstream`, all others by the Struct of the backend
that it names. If it names a vendor, the vendor's entries are merged below its own before that
(`sluice.config.vendors`).
"""

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Mapping as Environment
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from sluice.backends.credentials import ConfiguredCredential
from sluice.backends.protocol import Backend, ListsModels, find_backend
from sluice.config.checks import Checks
from sluice.config.checks.file import not_shared
from sluice.config.checks.limits import check_reservations
from sluice.config.credentials import CredentialReading
from sluice.config.interpolation import Expansion
from sluice.config.plugins import PluginReading
from sluice.config.price_file import bundled_prices, listed, read_prices
from sluice.config.problems import Path as KeyPath
from sluice.config.problems import Problem, Report, suggestion
from sluice.config.rule_file import ModelTable, bundled_table, read_table
from sluice.config.types import (
    COMPUTED,
    Config,
    Credential,
    Interceptor,
    Server,
    Stage,
    Tier,
    Upstream,
    targets_of,
)
from sluice.config.validation import INVALID, Special, Walk, fields_of, holds_invalid, type_info
from sluice.config.vendors import Presets, similar
from sluice.config.yamltext import Mapping, Node, Scalar, TextPosition, YamlError, read
from sluice.errors import ConfigError
from sluice.files import read_file, reason_of
from sluice.frontends import Frontend
from sluice.frontends.registry import conflicts, find_frontend, installed
from sluice.pricing.prices import PriceTable, price_at

if TYPE_CHECKING:
    from sluice.proxy.interceptors import InterceptorKind
    from sluice.proxy.stages import StageKind

MAX_FILE = 16 << 20
DEFAULTS = ("gateway.yaml", "/etc/sluice/gateway.yaml")

EMPTY = "the configuration is empty: `sluice init` writes a first one"

FindBackend = Callable[[str], type[msgspec.Struct]]


class Loaded(msgspec.Struct, frozen=True):
    """A configuration that can be used.

    backends      one instance per upstream, by the upstream's name
    credentials   those of upstreams that have any beside their backend's own key
    frontends     the client dialects that are served, by name
    interceptors  and `stages`: those of aliases that have any
    warnings      complete lines, ready to print
    hash          the hash of the file's bytes (before ${VAR}), for metrics and logs
    seed          random; it signs what is valid for as long as the gateway runs, in all of its processes
    prices        reads the table that comes with the gateway at first use; raises ConfigError if that is broken
    models        the configuration's own table of models; None: the one that comes with the gateway (`models_of`)
    given         the configuration as in the file, if `config` has other values for what several workers share; None: it
                  is the same
    """

    path: str
    config: Config
    backends: dict[str, Backend]
    warnings: tuple[str, ...] = ()
    hash: str = ""
    prices: PriceTable = PriceTable({})
    models: ModelTable | None = None
    credentials: Environment[str, tuple[ConfiguredCredential, ...]] = {}
    frontends: dict[str, Frontend] = {}
    interceptors: Environment[str, Sequence["InterceptorKind"]] = {}
    stages: Environment[str, Sequence["StageKind"]] = {}
    seed: bytes = msgspec.field(default_factory=lambda: secrets.token_bytes(32))
    given: Config | None = None
    workers: int | None = None  # on the command line, in place of the file's


class Checked(msgspec.Struct, frozen=True):
    """The outcome of a check: `loaded` is None if there are problems."""

    loaded: Loaded | None
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]


def load(
    path: str,
    *,
    environ: Environment[str, str] = os.environ,
    find: FindBackend = find_backend,
    data: bytes | None = None,
) -> Loaded:
    """Returns the configuration in the file at `path`. Raises ConfigError with every problem as
    file:line:column: path: message. `data`: the file's bytes, if the caller has read them."""
    return _usable(check(path, environ=environ, find=find, data=data))


def load_mapping(sections: Environment[str, Any], *, environ: Environment[str, str] = os.environ) -> Loaded:
    """Returns the configuration whose sections are given as they would be written in a file. Raises
    ConfigError, as `load` does."""
    report = Report("configuration")
    data = json.dumps(
        dict(sections), ensure_ascii=False, default=str, indent=1
    ).encode()  # JSON is valid YAML
    try:
        return _usable(_checked(report, data, _Reading(report, find_backend, environ), environ))
    except YamlError as error:
        raise ConfigError([f"configuration: {error.message}"]) from None


def _usable(checked: Checked) -> Loaded:
    if checked.loaded is None:
        raise ConfigError([str(problem) for problem in checked.problems])
    return checked.loaded


def check(
    path: str,
    *,
    environ: Environment[str, str] = os.environ,
    find: FindBackend = find_backend,
    blind: bool = False,
    data: bytes | None = None,
) -> Checked:
    """Like `load`, but returns the problems as values. Never raises for anything in the file.

    `blind`: ${VAR} and ${file:…} are not looked up. Their values are not checked then, and nothing is loaded.
    """
    report = Report(path)
    try:
        data = read_file(path, MAX_FILE) if data is None else data
        return _checked(report, data, _Reading(report, find, environ, blind=blind), environ, blind=blind)
    except YamlError as error:
        report.problem((), error.message, error.at)
    except OSError as error:
        report.problem((), f"cannot be read: {reason_of(error)}", TextPosition())
    return _outcome(report, None)


def check_text(data: bytes, *, find: FindBackend = find_backend) -> Checked:
    """Like `check`, for a text that is not in a file yet. ${VAR} and ${file:…} are not looked up, and nothing
    is loaded."""
    report = Report("text")
    try:
        if len(data) > MAX_FILE:
            raise YamlError(TextPosition(), f"larger than {MAX_FILE >> 10} KiB")
        return _checked(report, data, _Reading(report, find, {}, blind=True), {}, blind=True)
    except YamlError as error:
        report.problem((), error.message, error.at)
    return _outcome(report, None)


def _is_empty(root: Node) -> bool:
    return (isinstance(root, Mapping) and not root.entries) or (
        isinstance(root, Scalar) and root.value is None
    )


def _checked(
    report: Report, data: bytes, reading: "_Reading", environ: Environment[str, str], *, blind: bool = False
) -> Checked:
    """Raises YamlError if the text is not YAML."""
    root = read(data)
    if _is_empty(root):
        report.problem((), EMPTY, root.at)
        return _outcome(report, None)
    expansion = Expansion(
        environ, _read_text, lambda at, node, text: report.problem(at, text, node.at), blind=blind
    )
    config = reading.config(expansion.tree(root))
    if report.problems or expansion.unknown or reading.presets.unknown:
        return _outcome(report, None)
    prices = _prices(config, report)
    models = _models(config, report)
    _check_expansions(config, reading.backends, report)
    frontends = _frontends(config, report)
    if not report.problems:
        check_reservations(config, reading.backends, prices, report, time.time())
    warnings = tuple(str(warning) for warning in sorted(report.warnings))
    digest = hashlib.sha256(data).hexdigest()[:12]
    loaded = Loaded(
        report.file,
        config,
        reading.backends,
        warnings,
        digest,
        prices=prices,
        models=models,
        credentials=reading.credentials.found,
        frontends=frontends,
        interceptors=reading.plugins.interceptors,
        stages=reading.plugins.stages,
    )
    return _outcome(report, loaded)


def _prices(config: Config, report: Report) -> PriceTable:
    """Loads the prices. A configured file is read at once, to report its problems; the bundled one when it is
    needed."""
    own = listed(config.prices.models)
    if config.prices.file is None:
        table = PriceTable(own, bundled_prices)
    else:
        found, of_file = read_prices(Path(config.prices.file))
        report.problems += of_file.problems
        table = PriceTable(own, lambda: found)
    if config.prices.unknown == "refuse" and not report.problems:
        for path, upstream, model in _targets(config):
            if price_at(table.prices_of(upstream, model), time.time()) is None:
                report.warning(path, f"{upstream}/{model} has no price: no call goes there (prices.unknown)")
    return table


def _models(config: Config, report: Report) -> ModelTable | None:
    """Returns the configuration's own table of models, if it names one."""
    if config.models.file is None:
        return None
    try:
        return read_table(Path(config.models.file))
    except ConfigError as error:
        for problem in error.problems:
            report.problem(("models", "file"), problem)
        return None


def _check_expansions(config: Config, backends: Environment[str, Backend], report: Report) -> None:
    """Reports aliases that are to be shown as the models behind them, if these models are unknown."""
    for name, alias in config.aliases.items():
        if not alias.expand:
            continue
        path = ("aliases", name, "expand")
        target = next((target for target in targets_of(alias.tiers[0]) if "*" in target.model), None)
        if not name.endswith("*") or target is None:
            report.problem(
                path, "is for aliases that end in *, with a target in their first tier whose model has a *"
            )
            continue
        backend = backends[target.upstream]
        if not isinstance(backend, ListsModels) or backend.listing() is None:
            report.problem(
                path, f"the upstream {target.upstream} has no list of models that this backend knows"
            )


def models_of(loaded: Loaded) -> ModelTable:
    """Returns the table of models that a configuration uses. Raises ConfigError if the bundled one is broken."""
    return loaded.models or bundled_table()


def _frontends(config: Config, report: Report) -> dict[str, Frontend]:
    """Returns the client dialects that are to be served; others are not imported."""
    found: dict[str, Frontend] = {}
    names, at = config.server.frontends, ("server", "frontends")
    for number, name in enumerate(installed() if names is None else names):
        try:
            found[name] = find_frontend(name)
        except LookupError as error:
            report.problem(
                at if names is None else (*at, number),
                f"{error.args[0]}{suggestion(name, {*installed()} - {name})}",
            )
    if not found and not report.problems:
        report.problem(at, f"at least one is needed; installed: {', '.join(installed())}")
    for conflict in conflicts(found.values()):
        report.problem(at, conflict)
    return found


def _targets(config: Config) -> Iterator[tuple[KeyPath, str, str]]:
    for name, alias in config.aliases.items():
        for number, tier in enumerate(alias.tiers):
            within = ("targets",) if isinstance(tier, Tier) else ()
            for index, target in enumerate(targets_of(tier)):
                if (
                    "*" not in target.model
                ):  # otherwise the prices of its models are looked up when they are needed
                    yield (
                        ("aliases", name, "tiers", number, *within, index, "model"),
                        target.upstream,
                        target.model,
                    )


def with_workers(loaded: Loaded, workers: int) -> Loaded:
    """Returns the configuration with another number of workers than the file's, with a warning about options
    that these would not share."""
    config, warnings = loaded.config, loaded.warnings
    if workers > 1 and config.server.workers == 1:
        warnings += tuple(
            f"{loaded.path}: {'.'.join(map(str, path))}: {text}" for path, text in not_shared(config)
        )
    server = msgspec.structs.replace(config.server, workers=workers)
    return msgspec.structs.replace(
        loaded,
        config=msgspec.structs.replace(config, server=server),
        warnings=warnings,
        workers=workers,
    )


def locate(given: str | None, environ: Environment[str, str] = os.environ) -> str:
    """Returns the path of the file: the one given, else $SLUICE_CONFIG, else the first of DEFAULTS that
    exists. Raises ConfigError."""
    if chosen := given or environ.get("SLUICE_CONFIG"):
        return chosen
    for path in DEFAULTS:
        if Path(path).is_file():
            return path
    raise ConfigError(
        [
            f"no configuration: give --config PATH or $SLUICE_CONFIG (looked for {' and '.join(DEFAULTS)}); "
            "`sluice init` writes a first one"
        ]
    )


def admin_listen_of(path: str, environ: Environment[str, str] = os.environ) -> str:
    """Returns the admin address of the gateway with this file. Nothing else of the file is read, so the
    caller need not have its secrets. Raises ConfigError."""
    report = Report(path)
    try:
        node: Node = read(read_file(path, MAX_FILE))
        for name in ("server", "admin_listen"):
            entry = node.entries.get(name) if isinstance(node, Mapping) else None
            if entry is None:
                return Server().admin_listen
            node = entry.node
        at = ("server", "admin_listen")
        expansion = Expansion(environ, _read_text, lambda _, node, text: report.problem(at, text, node.at))
        node = expansion.tree(node, at)
        if isinstance(node, Scalar) and isinstance(node.value, str):
            return node.value
        if not report.problems:
            report.problem(at, 'expected host:port in quotes, such as "127.0.0.1:8081"', node.at)
    except YamlError as error:
        report.problem((), error.message, error.at)
    except OSError as error:
        report.problem((), f"cannot be read: {(error.strerror or str(error)).lower()}", TextPosition())
    raise ConfigError([str(problem) for problem in report.problems])


def _outcome(report: Report, loaded: Loaded | None) -> Checked:
    problems = tuple(sorted(report.problems))
    return Checked(None if problems else loaded, problems, tuple(sorted(report.warnings)))


def _read_text(path: str) -> str:
    return read_file(path, 64 << 10).decode("utf-8")


class _Reading:
    """Reads one file: its sections, and the backends that its upstreams name."""

    def __init__(
        self, report: Report, find: FindBackend, environ: Environment[str, str], *, blind: bool = False
    ) -> None:
        self._report = report
        self._find = find
        self.presets = Presets(report, environ, _read_text, blind=blind)
        self.backends: dict[str, Backend] = {}
        self.credentials = CredentialReading(report, environ, blind=blind)
        self.plugins = PluginReading(report)

    def config(self, root: Node) -> Any:
        special: dict[type, Special] = {
            Upstream: self._upstream,
            Credential: self.credentials.section,
            Interceptor: self.plugins.interceptor,
            Stage: self.plugins.stage,
        }
        walk = Walk(self._report, special)
        config = walk.value(root, type_info(Config))
        if isinstance(root, Mapping):
            checks = Checks(self._report, _names(root, "upstreams"), _names(root, "aliases"))
            for path, section in walk.sections:
                checks.section(path, section)
        return config

    def _upstream(self, walk: Walk, node: Mapping, path: KeyPath) -> Upstream:
        own = [field for field in fields_of(Upstream) if field.name not in COMPUTED]
        node, vendor = self._completed(node, path)
        values = walk.fields(node, own, path)
        backend = self._backend(node, values["backend"], path)
        if backend is None:
            return Upstream(**values, vendor=vendor)
        options = [
            field
            for field in fields_of(backend)
            if field.encode_name not in {field.encode_name for field in own}
        ]
        walk.unknown(node, [field.encode_name for field in (*own, *options)], path)
        before = len(self._report.problems)
        given = walk.fields(node, options, path)
        if len(self._report.problems) == before and not holds_invalid(given):
            self._construct(backend, given, node, path)
        upstream = Upstream(**values, options=given, vendor=vendor)
        if "credentials" in node.entries:
            self.credentials.of_upstream(upstream, backend, self.backends.get(str(path[-1])), path)
        return upstream

    def _completed(self, node: Mapping, path: KeyPath) -> tuple[Mapping, str]:
        """Returns the section, with a vendor's entries below its own if it names one; and the vendor's name."""
        entry = node.entries.get("backend")
        if entry is None or not isinstance(entry.node, Scalar):
            return node, ""
        name = entry.node.text
        try:
            self._find(name)
        except LookupError:
            completed = self.presets.completed(name, node, path)
            return (node, "") if completed is None else (completed, name)
        return node, ""

    def _backend(self, node: Mapping, name: Any, path: KeyPath) -> type[msgspec.Struct] | None:
        if name is INVALID:
            own = {field.encode_name for field in fields_of(Upstream)} - COMPUTED
            for key, entry in node.entries.items():
                if key not in own and (hint := suggestion(key, own, 0.75)):
                    self._report.problem((*path, key), f'unknown key "{key}"{hint}', entry.at)
            return None
        try:
            return self._find(name)
        except LookupError as error:
            self._report.problem((*path, "backend"), f"{error.args[0]}{similar(name)}")
            return None

    def _construct(
        self, backend: type[msgspec.Struct], options: dict[str, Any], node: Mapping, path: KeyPath
    ) -> None:
        try:
            made = self.backends[str(path[-1])] = cast(Backend, backend(**options))
            _check_sendable(made)
        except (
            ValueError,
            TypeError,
        ) as error:  # its __post_init__ refuses, or its requests could not be sent
            text = str(error)
            option = node.entries.get(text.partition(" ")[0])  # most messages begin with the option's name
            self._report.problem(path, text, option.at if option is not None else node.at)


def _check_sendable(backend: Backend) -> None:
    """Raises ValueError if no request of the backend could be sent, because of its address, its key or a
    header."""
    base_url = getattr(backend, "base_url", "")
    if not base_url or not hasattr(backend, "request"):
        return
    from sluice.model.chat import ChatRequest, Message, Text
    from sluice.upstream.request import Heads, origin_of

    heads = Heads(origin_of(base_url), backend.credentials(), "")
    heads.of(backend.request(ChatRequest("", "m", (Message("user", (Text("x"),)),)), "m"))


def _names(root: Mapping, section: str) -> list[str]:
    entry = root.entries.get(section)
    return list(entry.node.entries) if entry is not None and isinstance(entry.node, Mapping) else []
