"""Checks the tags that usage is counted by: where each comes from, and how many there are."""

import re

from sluice.config.problems import Report
from sluice.config.types import Config, Tag, UsageReport
from sluice.identity.keys import HEADERS
from sluice.usage.tags import MAX_VALUE_LENGTH

MAX_TAGS = 8
"""Maximum tags: usage is counted once more for each."""
SECRET_HEADERS = {name.decode() for name in HEADERS} | {"cookie", "x-admin-api-key", "proxy-authorization"}


def check_tags(config: Config, report: Report) -> None:
    """Reports tags that have no source, that would count secrets, or whose values could never occur."""
    if not isinstance(config.usage, UsageReport) or not isinstance(config.usage.tags, dict):
        return
    if len(config.usage.tags) > MAX_TAGS:
        report.problem(("usage", "tags"), f"more than {MAX_TAGS} tags: usage is counted once more for each")
    for name, tag in config.usage.tags.items():
        at = ("usage", "tags", name)
        if not isinstance(tag, Tag):
            continue
        if tag.header is None and tag.metadata is None:
            report.problem(at, "needs a header or a field of the metadata to be read from")
        if isinstance(tag.header, str):
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}", tag.header):
                report.problem((*at, "header"), "expected the name of a header, such as x-project")
            elif tag.header.lower() in SECRET_HEADERS:
                report.problem((*at, "header"), "holds a credential, which must not be in a report")
        for index, value in enumerate(tag.values if isinstance(tag.values, tuple) else ()):
            if isinstance(value, str) and not (
                0 < len(value) <= MAX_VALUE_LENGTH and value.isprintable() and value == value.strip()
            ):
                report.problem(
                    (*at, "values", index),
                    f"expected text of 1 to {MAX_VALUE_LENGTH} characters that can be seen",
                )
