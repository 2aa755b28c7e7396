"""The OpenAPI 3.1 document of the served routes: `openapi.json`. Tests compare it with the routes and a
running gateway.

Standard: https://spec.openapis.org/oas/v3.1.0
"""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import msgspec

from sluice.version import VERSION


def document(aliases: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the whole document, ready for JSON; `aliases` become the values that `model` may have."""
    found: dict[str, Any] = msgspec.json.decode(files("sluice.api").joinpath("openapi.json").read_bytes())
    found["info"]["version"] = VERSION
    if aliases:
        for schema in ("ChatTurn", "CompletionRequest", "TextCompletionRequest", "EmbeddingsRequest"):
            found["components"]["schemas"][schema]["properties"]["model"]["enum"] = [*sorted(aliases), None]
    return found
