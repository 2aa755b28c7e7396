"""Finds the features of a request that a target lacks, and refuses them by field name or leaves them out.
Pure.

It runs when a request is translated. The alias's `unsupported` decides: by default, fields that change the
question or the answer are refused, and preferences are left out and counted; `refuse` refuses preferences,
too; `drop` leaves out all that is not content. Fields in the configuration's own `drop` are always left out.
"""

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from sluice.errors import BadRequest
from sluice.model.chat import ChatRequest
from sluice.model.features import SAMPLING, Feature, Use, uses_of
from sluice.model.rules import NO_RULES, ModelRules

Unsupported = Literal["refuse", "drop"] | None


class Capable:
    """The capabilities of one target, within one alias.

    `takes`: names of the features that it can express (`sluice.model.features`). `configured_drops`: fields
    that the configuration itself leaves out, which are never refused. `dropped` is called with the name of
    each field that is left out.
    """

    def __init__(
        self,
        takes: frozenset[str],
        unsupported: Unsupported,
        dropped: Callable[[str], object],
        configured_drops: frozenset[str],
    ) -> None:
        self._takes = takes
        self._unsupported = unsupported
        self._dropped = dropped
        self._configured_drops = configured_drops

    def check(self, chat: ChatRequest) -> bool:
        """Returns whether something has to be left out of the request. Raises BadRequest if something has to
        be refused.
        """
        lacking = self.lacking(chat)
        for use in lacking:
            if not self.may_drop(use):
                raise cannot(use.param, use.feature.title)
        return bool(lacking)

    def without(self, chat: ChatRequest) -> ChatRequest:
        """Returns the request without the features that the target lacks. Call `check` first."""
        changed: dict[str, Any] = {}
        of_sampling: dict[str, Any] = {}
        for use in self.lacking(chat):
            self._dropped(use.field)
            name = use.feature.name
            if name in SAMPLING:
                of_sampling[name] = () if name == "stop" else None
            elif name in _ABSENT:
                changed |= _ABSENT[name]
        if of_sampling:
            changed["sampling"] = msgspec.structs.replace(chat.sampling, **of_sampling)
        return msgspec.structs.replace(chat, **changed) if changed else chat

    def lacking(self, chat: ChatRequest) -> list[Use]:
        """Returns the features that the request uses and the target lacks."""
        takes = self._takes
        return [use for use in uses_of(chat) if use.feature.name not in takes]

    def may_drop(self, use: Use) -> bool:
        """Returns whether the feature may be left out; otherwise it has to be refused."""
        if use.feature.weight == "content":
            return False
        if use.field in self._configured_drops:
            return True
        if use.feature.weight == "answer":
            return self._unsupported == "drop"
        return self._unsupported != "refuse"


_ABSENT: dict[str, dict[str, Any]] = {
    "parallel_tool_calls": {"parallel_tool_calls": None}, "tool_choice_required": {"tool_choice": None},
    "tool_choice_named": {"tool_choice": None}, "json_object": {"response_format": None},
    "json_schema": {"response_format": None}, "n": {"n": 1}, "reasoning_effort": {"reasoning": None},
    "reasoning_budget": {"reasoning": None}, "cache_control": {"cache": None}, "user": {"user": ""},
}  # fmt: skip


def cannot(param: str, what: str = "") -> BadRequest:
    """Returns the error for a field that a target does not take."""
    named = f"{param}: {what}" if what else param
    return BadRequest(f"{named} cannot be given to this model", param=param, code="unsupported_parameter")


def refusing(dropped: Callable[[str], object], configured_drops: frozenset[str]) -> Callable[[str], object]:
    """Returns a replacement for `dropped` that refuses the request, unless the configuration drops the field
    by name."""

    def judged(name: str) -> None:
        if name not in configured_drops:
            raise cannot(name)
        dropped(name)

    return judged


def takes_of(backend: object, rules: ModelRules = NO_RULES) -> frozenset[str] | None:
    """Returns the features that a backend declares (`takes`), less those that the model lacks; None: it takes
    all."""
    takes: frozenset[str] | None = getattr(type(backend), "takes", None)
    if takes is not None and rules.cache_marks:
        takes |= {"cache_control"}
    return None if takes is None else takes - rules.lacks


__all__ = ["Capable", "Feature", "Unsupported", "cannot", "refusing", "takes_of"]
