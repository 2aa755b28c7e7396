"""`GET /v1/models` and `GET /v1/models/{model}`: the aliases that the caller may use, as Anthropic lists
models, page by page.

Standard: https://platform.claude.com/docs/en/api/models/list
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sluice.errors import ModelNotFound
from sluice.frontends import Inquiry, Reply
from sluice.frontends.anthropic.limits import time_of
from sluice.frontends.checks import refused
from sluice.model.facts import NOTHING

PAGE = 20
MAX_PAGE = 1000
"""Models per page: the default, and the maximum."""
_json = msgspec.json.Encoder().encode


async def models(inquiry: Inquiry) -> Reply:
    """Lists models. Raises BadRequest for an invalid page."""
    page, more = page_of(inquiry.models, inquiry.head.query)
    listed = {
        "data": [_model(inquiry, name) for name in page],
        "has_more": more,
        "first_id": page[0] if page else None,
        "last_id": page[-1] if page else None,
    }
    return Reply(_json(listed))


async def model(inquiry: Inquiry) -> Reply:
    """Returns one model. Raises ModelNotFound."""
    name = inquiry.head.parameters["model"]
    if name not in inquiry.models:
        raise ModelNotFound("There is no such model, or this key may not use it", param="model")
    return Reply(_json(_model(inquiry, name)))


def page_of(names: Sequence[str], query: Mapping[str, str]) -> tuple[Sequence[str], bool]:
    """Returns one page of these names, and whether there are more in its direction. Raises BadRequest."""
    limit = _limit(query.get("limit", ""))
    after, before = query.get("after_id"), query.get("before_id")
    if after and before:
        raise refused("before_id", "must not be given beside after_id")
    if before:
        rest = names[: _place(names, before, "before_id")]
        return rest[-limit:], len(rest) > limit
    rest = names[_place(names, after, "after_id") + 1 :] if after else names
    return rest[:limit], len(rest) > limit


def _limit(given: str) -> int:
    if not given:
        return PAGE
    limit = int(given) if given.isascii() and given.isdigit() and len(given) < 10 else 0
    if not 1 <= limit <= MAX_PAGE:
        raise refused("limit", f"must be a whole number from 1 to {MAX_PAGE}")
    return limit


def _place(names: Sequence[str], name: str, parameter: str) -> int:
    if name not in names:
        raise refused(parameter, "must be the id of a model")
    return names.index(name)


def _model(inquiry: Inquiry, name: str) -> dict[str, Any]:
    fields = {
        "type": "model",
        "id": name,
        "display_name": name,
        "created_at": time_of(math.ceil(inquiry.started)),
    }
    facts = inquiry.facts(name)
    if facts == NOTHING:
        return fields
    kinds = {"image_input": "image", "pdf_input": "pdf"}
    takes = (
        {capability: {"supported": kind in facts.input} for capability, kind in kinds.items()}
        if facts.input
        else None
    )
    return fields | {
        "max_input_tokens": facts.context or None,
        "max_tokens": facts.output or None,
        "capabilities": takes,
    }
