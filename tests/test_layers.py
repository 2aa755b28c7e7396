"""Imports point one way, no two files import each other in a circle, and only the edges touch sockets, files
or servers.

The order of the packages is the one of docs/architecture.md; ORDER has it from the bottom to the top.
"""

import ast
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = {
    path.relative_to(root).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): path
    for root in (ROOT / "gateway", ROOT / "plugins")
    for path in sorted(root.rglob("*.py"))
    if "examples" not in path.parts  # somebody else's distributions
}

ORDER = (
    {
        "sluice",
        "sluice.errors",
        "sluice.version",
        "sluice.entrypoints",
        "sluice.certificates",
        "sluice.files",
        "sluice.aio",
        "sluice.model",
    },
    {
        "sluice.config.types",
        "sluice.config.resources",
        "sluice.config.units",
        "sluice.config.problems",
        "sluice.config.yamltext",
    },
    {
        "sluice.wire",
        "sluice.storage",
        "sluice.telemetry.series",
        "sluice.telemetry.table",
        "sluice.telemetry.board",
        "sluice.telemetry.output",
        "sluice.telemetry.formats",
        "sluice.telemetry.native",
        "sluice.telemetry.exemplars",
        "sluice.telemetry.messages",
        "sluice.telemetry.points",
    },
    {
        "sluice.backends",
        "sluice.limits",
        "sluice.conversations",
        "sluice.kept",
        "sluice.pricing",
        "sluice.identity",
    },
    {"sluice.keystore", "sluice.frontends", "sluice.routing", "sluice.upstream", "sluice.server"},
    {
        "sluice.telemetry.logs",
        "sluice.telemetry.metrics",
        "sluice.telemetry.merged",
        "sluice.telemetry.notices",
    },
    {"sluice.resume", "sluice.proxy", "sluice.otlp"},
    {
        "sluice.policies",
        "sluice.usage",
        "sluice.telemetry.records",
        "sluice.telemetry.recent",
        "sluice.tracing",
        "sluice.sinks",
    },
    {"sluice.config"},
    {"sluice.runtime"},
    {"sluice.api", "sluice.ui", "sluice.embed"},
    {"sluice.process", "sluice.web"},
    {"sluice.testing", "sluice.simulate"},
    {"sluice.commands"},
    {"sluice.cli", "sluice.__main__", "sluice.pytest_plugin"},
)
"""Layers; a module belongs to the longest name that it begins with, and imports its own layer and those
before it."""

STRICTER = {
    "sluice.wire": {"sluice.wire", "sluice.errors", "sluice.model", "sluice.backends.transport"},
    "sluice.limits": {"sluice.limits", "sluice.storage", "sluice.errors"},
    "sluice.conversations": {"sluice.conversations", "sluice.storage", "sluice.errors"},
    "sluice.storage": {"sluice.storage", "sluice.config.units"},
    "sluice.frontends": {"sluice.frontends", "sluice.wire", "sluice.errors", "sluice.model", "sluice.entrypoints"},
    "sluice.model": {"sluice.model", "sluice.errors"},
    "sluice.aio": {"sluice.aio"},
    "sluice.proxy.relay": {
        "sluice.backends",
        "sluice.errors",
        "sluice.model",
        "sluice.frontends",
        "sluice.proxy.estimate",
    },
    "sluice_plugins": {
        "sluice_plugins",
        "sluice.backends",
        "sluice.wire",
        "sluice.errors",
        "sluice.model",
        "sluice.config.types",
    },
    "sluice_plugins.interceptors": {
        "sluice_plugins",
        "sluice.proxy.interceptors",
        "sluice.proxy.run",
        "sluice.proxy.writer",
        "sluice.errors",
        "sluice.model",
        "sluice.config.types",
    },
    "sluice_plugins.stages": {"sluice_plugins", "sluice.proxy.stages", "sluice.errors", "sluice.model", "sluice.config.types"},
}  # fmt: skip
"""What may be imported by modules that know less than their layer would let them. A module belongs to the
longest name."""

EDGES = {
    "sluice.cli", "sluice.__main__", "sluice.certificates", "sluice.process", "sluice.server", "sluice.upstream",
    "sluice.limits.redis", "sluice.storage.redis_cluster",
    "sluice.storage.postgres", "sluice.storage.redis", "sluice.storage.sqlite", "sluice.conversations.sqlite",
    "sluice.keystore.sqlite", "sluice.usage.sqlite", "sluice.kept.sqlite", "sluice.identity.remote", "sluice.identity.jwks",
    "sluice.identity.provider",
    "sluice.config.loader", "sluice.config.interpolation", "sluice.otlp.http", "sluice.sinks.http", "sluice.sinks.kafka",
    "sluice.telemetry.logs", "sluice.telemetry.output", "sluice.runtime",
    "sluice.web", "sluice.testing", "sluice.commands",
}  # fmt: skip
IO_MODULES = {
    "socket",
    "ssl",
    "aiohttp",
    "redis",
    "asyncpg",
    "confluent_kafka",
    "sqlite3",
    "httptools",
    "subprocess",
    "urllib.request",
    "uvloop",
}


def within(name: str, places: set[str]) -> bool:
    return any(name == place or name.startswith(place + ".") for place in places)


@cache
def nodes(name: str) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(SOURCES[name].read_text())))


@cache
def imports_of(name: str) -> frozenset[str]:
    """Modules that a module imports, wherever in the file, with `from package import module` as
    `package.module`."""
    found: set[str] = set()
    for node in nodes(name):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                found.add(whole if whole in SOURCES else node.module)
    return frozenset(found - {name})


def ours(name: str) -> frozenset[str]:
    return frozenset(found for found in imports_of(name) if found in SOURCES)


def layer(name: str) -> int:
    places = [(len(place), at) for at, layer in enumerate(ORDER) for place in layer if within(name, {place})]
    return max(places)[1]


def test_every_package_has_its_place_in_the_order() -> None:
    placed = set().union(*ORDER)
    assert not placed - {place for place in placed if any(within(name, {place}) for name in SOURCES)}
    packages = {".".join(name.split(".")[:2]) for name in SOURCES if name.startswith("sluice.")}
    assert not {package for package in packages if not any(place.startswith(package) for place in placed)}


def test_imports_point_one_way() -> None:
    assert not {
        f"{name} imports {found}"
        for name in SOURCES
        if not name.startswith("sluice_plugins")
        for found in ours(name)
        if found.startswith("sluice_plugins") or layer(found) > layer(name)
    }


@pytest.mark.parametrize(("place", "allowed"), STRICTER.items(), ids=STRICTER)
def test_what_knows_less_imports_less(place: str, allowed: set[str]) -> None:
    strangers = {
        f"{name} imports {found}"
        for name in SOURCES
        if place == max((other for other in STRICTER if within(name, {other})), key=len, default="")
        for found in ours(name)
        if not within(found, allowed) and found != "sluice"
    }
    assert not strangers


def dialects() -> set[str]:
    """The names of the client and upstream dialects that come along, and of the folders they are in."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    found = {name for group in ("sluice.frontends", "sluice.backends") for name in groups[group]}
    return found | {
        path.name for path in (ROOT / "gateway/sluice/frontends").iterdir() if (path / "dialect.py").exists()
    }


def test_the_vocabulary_and_the_call_name_no_dialect() -> None:
    """What is known of a dialect is said by its frontend or its backend, so that a new one is a folder and an
    entry point."""
    names = dialects()
    assert len(names) > 10
    for name in SOURCES:
        if not within(name, {"sluice.model", "sluice.proxy"}):
            continue
        texts = {
            node.value
            for node in nodes(name)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        assert not {text for text in texts if text.rstrip(":") in names}, name
        assert not {found for found in imports_of(name) if names & set(found.split(".")[2:])}, name


def test_no_two_files_import_each_other_in_a_circle() -> None:
    waiting = {name: set(ours(name)) for name in SOURCES}
    while free := {name for name, found in waiting.items() if not found & waiting.keys()}:
        for name in free:
            del waiting[name]
    assert not waiting, f"a circle is among {sorted(waiting)}"


def test_only_the_edges_touch_sockets_files_or_servers() -> None:
    assert not {
        f"{name} imports {found}"
        for name in SOURCES
        if not within(name, EDGES)
        for found in imports_of(name)
        if found in IO_MODULES or found.split(".")[0] in IO_MODULES
    }


def test_nobody_catches_cancellation() -> None:
    for name in SOURCES:
        for node in nodes(name):
            if isinstance(node, ast.ExceptHandler) and node.type is not None:
                caught = ast.unparse(node.type)
                assert "CancelledError" not in caught, name
                raises = any(isinstance(below, ast.Raise) for below in ast.walk(node))
                assert "BaseException" not in caught or raises, name


def test_secrets_are_compared_in_constant_time() -> None:
    for name in SOURCES:
        for node in nodes(name):
            if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
                operands = {
                    operand.attr if isinstance(operand, ast.Attribute) else getattr(operand, "id", "")
                    for operand in (node.left, *node.comparators)
                }
                assert not operands & {"digest", "secret", "api_key"}, f"{name}:{node.lineno}"


def test_no_name_of_a_module_is_given_twice() -> None:
    """A constant that a rename made equal to another one silently takes its value."""
    for name in SOURCES:
        module = nodes(name)[0]
        assert isinstance(module, ast.Module)
        given = [
            target.id
            for node in module.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        ]
        assert len(given) == len(set(given)), name


def test_no_function_takes_more_than_five_positional_arguments() -> None:
    """Whoever reads a call of six values cannot tell which is which."""
    for name in SOURCES:
        for node in nodes(name):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                taken = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args)]
                assert len(set(taken) - {"self", "cls"}) <= 5, f"{name}.{node.name}"
