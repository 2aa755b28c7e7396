"""The authenticated caller: its sessions and its aliases."""

import pytest

from sluice.identity.principal import EVERY, Principal, default_of


def caller(**fields: object) -> Principal:
    return Principal("key", "tenant", "key", frozenset({"chat"}), **fields)  # type: ignore[arg-type]


def test_a_caller_without_a_prefix_names_its_sessions() -> None:
    assert caller().session("any") == "any"


def test_sessions_begin_with_the_callers_prefix_or_are_refused() -> None:
    assert caller(session_prefix="p-1").session("p-1-a") == "p-1-a"
    assert caller(session_prefix="p-1").session("p-2-a") is None


def test_a_page_with_sessions_of_its_own_cannot_leave_its_prefix() -> None:
    page = caller(session_prefix="p-1", own_sessions=True)
    assert page.session("x") == "p-1:x"
    assert page.session("p-1:x") == "p-1:x"


@pytest.mark.parametrize(
    ("aliases", "alias", "may"),
    [
        ({"chat"}, "chat", True),
        ({"chat"}, "chat2", False),
        ({EVERY}, "anything", True),
        ({"gpt-*"}, "gpt-5", True),
        ({"gpt-*"}, "claude", False),
        (set(), "chat", False),
    ],
)
def test_aliases_and_wildcards_that_it_may_use(aliases: set[str], alias: str, may: bool) -> None:
    assert Principal("key", "tenant", "key", frozenset(aliases)).may(alias) is may


@pytest.mark.parametrize(
    ("aliases", "configured", "default"),
    [
        ({"a"}, None, "a"),
        ({"a", "b"}, None, None),
        ({"a", "b"}, "b", "b"),
        ({"a"}, "b", None),
        ({EVERY}, None, None),
        ({EVERY}, "b", "b"),
    ],
)
def test_the_alias_of_a_request_that_names_none(
    aliases: set[str], configured: str | None, default: str | None
) -> None:
    assert default_of(frozenset(aliases), configured) == default
