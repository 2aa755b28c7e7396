"""axe-core's rules of accessibility (https://github.com/dequelabs/axe-core), run in a page of the tests'
Chromium."""

from pathlib import Path

import pytest

from tests.ui.chromium import Page

SOURCE = Path(__file__).parents[2] / ".cache/ui-node/node_modules/axe-core/axe.min.js"
RULES = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
OF_NODE = "`${rule.id}: ${node.target.join(' ')}: ${node.any.map((one) => one.message).join('; ')}`"
RUN = (
    f"axe.run(document, {{runOnly: {[*RULES]}, resultTypes: ['violations']}})"
    f".then((found) => found.violations.flatMap((rule) => rule.nodes.map((node) => {OF_NODE})))"
)


def source() -> str:
    """Skips the test where axe-core is not installed."""
    if not SOURCE.is_file():
        pytest.skip("npm's axe-core is not installed (see .cache/log/ui-node.log)")
    return SOURCE.read_text()


async def violations(tab: Page) -> list[str]:
    """What breaks a rule of WCAG 2.2 AA or a best practice on this page, as it is shown now."""
    if not await tab.js("typeof axe === 'object'"):
        await tab.js(source() + "; undefined")
    found: list[str] = await tab.js(RUN)
    return found
