"""The OpenAPI 3.1 document of the routes that are served: `openapi.json`. Tests hold it against the routes and a gateway.

Standard: https://spec.openapis.org/oas/v3.1.0
"""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import msgspec

from sluice.version import VERSION


def document(aliases: Sequence[str] = ()) -> dict[str, Any]:
    """The whole document, ready for JSON; with `aliases`, they are the models that may be named."""
    found: dict[str, Any] = msgspec.json.decode(files("sluice.api").joinpath("openapi.json").read_bytes())
    found["info"]["version"] = VERSION
    if aliases:
        for schema in ("ChatTurn", "CompletionRequest", "TextCompletionRequest", "EmbeddingsRequest"):
            found["components"]["schemas"][schema]["properties"]["model"]["enum"] = [*sorted(aliases), None]
    return found
