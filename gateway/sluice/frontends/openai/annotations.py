"""Sources of an answer, in the form of OpenAI's models that search.

Standard: https://platform.openai.com/docs/guides/tools-web-search?api-mode=chat (message.annotations)
"""

from collections.abc import Sequence
from typing import Any

from sluice.model.events import Cited


def annotations(cited: Sequence[Cited]) -> list[dict[str, Any]]:
    """Returns the pages of the web; a document of the request cannot be expressed. If the cited text is
    unknown, both indexes are 0.
    """
    return [_annotation(source) for source in cited if source.url]


def _annotation(source: Cited) -> dict[str, Any]:
    start, end = max(source.start, 0), max(source.end, 0)
    return {
        "type": "url_citation",
        "url_citation": {"start_index": start, "end_index": end, "title": source.title, "url": source.url},
    }
