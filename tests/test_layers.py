"""Imports point one way, and only the edges touch sockets, files or Redis (see docs/architecture.md)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted([*ROOT.glob("gateway/**/*.py"), *ROOT.glob("plugins/*.py")])

VOCABULARY = {"gateway.errors", "gateway.events", "gateway.chat", "gateway.config", "gateway.units", "gateway.modelrules"}
EDGES = (
    "gateway/inbound", "gateway/serve.py", "gateway/upstream", "gateway/limits/redis.py", "gateway/storage/redis.py",
    "gateway/conversations/sqlite.py", "gateway/identity/remote.py", "gateway/usage/sqlite.py", "gateway/sqlitefile.py",
    "gateway/keystore/sqlite.py", "gateway/identity/jwks.py", "gateway/supervisor.py", "gateway/cli.py",
    "gateway/__main__.py", "gateway/configfile.py", "gateway/interpolation.py", "gateway/logs.py", "gateway/output.py",
    "gateway/ports.py", "gateway/runtime.py",
)  # fmt: skip
IO_MODULES = {"socket", "ssl", "aiohttp", "redis", "sqlite3", "httptools", "subprocess", "urllib.request", "uvloop"}


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def gateway_imports(path: Path) -> set[str]:
    return {name for name in imports_of(path) if name.startswith(("gateway", "plugins"))}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_in_the_gateway_imports_a_plugin(path: Path) -> None:
    if name_of(path).startswith("gateway/"):
        assert not {name for name in imports_of(path) if name.split(".")[0] == "plugins"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_the_edges_touch_sockets_files_or_servers(path: Path) -> None:
    if not name_of(path).startswith(EDGES):
        roots = {name for name in imports_of(path) if name in IO_MODULES or name.split(".")[0] in IO_MODULES}
        assert not roots


@pytest.mark.parametrize(
    ("folder", "allowed"),
    [
        ("gateway/wire", VOCABULARY | {"gateway.wire", "gateway.backends"}),
        ("gateway/frontends", VOCABULARY | {"gateway.wire", "gateway.frontends"}),
        ("plugins", VOCABULARY | {"gateway.wire", "gateway.backends", "gateway.transport", "plugins"}),
        ("gateway/limits", VOCABULARY | {"gateway.limits", "gateway.storage"}),
        ("gateway/storage", VOCABULARY | {"gateway.storage"}),
        ("gateway/conversations", VOCABULARY | {"gateway.conversations", "gateway.sqlitefile"}),
        ("gateway/keystore", VOCABULARY | {"gateway.keystore", "gateway.identity", "gateway.sqlitefile", "gateway.storage"}),
        ("gateway/sqlitefile.py", set()),
        ("gateway/identity", VOCABULARY | {"gateway.identity"}),
        ("gateway/routing.py", VOCABULARY | {"gateway.health", "gateway.strategies"}),
        ("gateway/strategies.py", VOCABULARY | {"gateway.health"}),
        ("gateway/health.py", VOCABULARY),
        ("gateway/relay.py", VOCABULARY | {"gateway.backends", "gateway.frontends"}),
        ("gateway/pipeline.py", None),
    ],
)
def test_imports_point_one_way(folder: str, allowed: set[str] | None) -> None:
    forbidden = {"gateway.inbound", "gateway.serve", "gateway.api", "gateway.runtime", "gateway.cli", "gateway.upstream"}
    for path in MODULES:
        if not name_of(path).startswith(folder):
            continue
        used = gateway_imports(path)
        assert not used & forbidden, name_of(path)
        if allowed is not None:
            strangers = {name for name in used if not any(name == a or name.startswith(a + ".") for a in allowed)}
            assert not strangers, f"{name_of(path)} imports {strangers}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nobody_catches_cancellation(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler) and node.type is not None:
            caught = ast.unparse(node.type)
            assert "CancelledError" not in caught
            assert "BaseException" not in caught or any(isinstance(n, ast.Raise) for n in ast.walk(node))


def test_secrets_are_compared_in_constant_time() -> None:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
                operands = {
                    operand.attr if isinstance(operand, ast.Attribute) else getattr(operand, "id", "")
                    for operand in (node.left, *node.comparators)
                }
                assert not operands & {"digest", "secret", "api_key"}, f"{name_of(path)}:{node.lineno}"
