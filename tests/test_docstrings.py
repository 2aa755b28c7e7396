"""Docstrings name what exists: a rename that forgets them sends the reader to nowhere."""

import ast
import builtins
import re

from tests.test_layers import SOURCES, nodes

GROUPS = ("sluice.backends", "sluice.credentials", "sluice.frontends", "sluice.interceptors", "sluice.stages")
"""Names of entry points, which are no modules."""


def names_in(name: str) -> set[str]:
    found = set()
    for node in nodes(name):
        match node:
            case ast.ClassDef(name=known) | ast.FunctionDef(name=known) | ast.AsyncFunctionDef(name=known):
                found.add(known)
            case ast.Name(id=known) | ast.Attribute(attr=known) | ast.arg(arg=known):
                found.add(known)
            case ast.alias(name=known, asname=other):
                found.add((other or known).rpartition(".")[2])
    return found


def docstrings() -> list[tuple[str, str]]:
    return [
        (f"{name}:{node.lineno}", node.value.value)
        for name in SOURCES
        for node in nodes(name)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    ]


def exists(path: str) -> bool:
    """Returns whether a dotted path is a module, or leads to a name in one."""
    module, rest = path, ""
    while module and module not in SOURCES:
        module, _, rest = module.rpartition(".")
    return bool(module) and (not rest or rest in names_in(module))


def test_every_error_that_a_docstring_says_is_raised_exists() -> None:
    known = set(dir(builtins)).union(*map(names_in, SOURCES))
    unknown = {
        f"{place} {error}"
        for place, text in docstrings()
        for raised in re.findall(r"[Rr]aises ([^.;:(]*)", text)
        for error in re.findall(r"\b(?:[A-Z][a-z]+){2,}\b", raised)
        if error not in known
    }
    assert not unknown


def test_every_module_that_a_docstring_refers_to_exists() -> None:
    unknown = {
        f"{place} {path}"
        for place, text in docstrings()
        for path in re.findall(r"`(sluice\.[\w.]*\w)`", text)
        if path not in GROUPS and not exists(path)
    }
    assert not unknown
