"""The documentation's links to other sites: which they are, and what is wrong with one (none is asked)."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts/external_links.py"


def _script() -> Any:
    spec = importlib.util.spec_from_file_location("external_links", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LINKS = _script()
PAGE = """A [link](https://a.org/x_(y)), <https://b.org/>, https://c.org/z. `https://in.code`
[1]: https://d.org/one
```yaml
base_url: https://in.a.block
```
[own](https://gateway.example.com/) http://127.0.0.1:8080/ui/ https://localhost/ [two](https://e.org/#part), https://f.org/a|b
It says "visit: https://g.org/in…" then.
"""


def test_links_are_found_with_their_lines_and_examples_are_none() -> None:
    assert [(link.line, link.url) for link in LINKS.links_in("page.md", PAGE)] == [
        (1, "https://a.org/x_(y)"),
        (1, "https://b.org/"),
        (1, "https://c.org/z"),
        (2, "https://d.org/one"),
        (6, "https://e.org/#part"),
        (6, "https://f.org/a"),
        (7, "https://g.org/in"),
    ]


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("https://a.org/x?y=1#z", ""),
        ("http://a.org/", "not https"),
        ("https://user@a.org/", "no host"),
        ("https://a.org/ä", "must escape"),
        ("https://a.org/?utm_source=x", "tracks"),
    ],
)
def test_the_form_of_a_link_is_judged(url: str, wrong: str) -> None:
    assert wrong in LINKS.wrong_with(url)
    assert bool(LINKS.wrong_with(url)) == bool(wrong)


def test_no_page_has_a_link_of_a_wrong_form() -> None:
    found = LINKS.found()
    assert {link.page for link in found} >= {"docs/comparison.md"}
    assert [link for link in found if LINKS.wrong_with(link.url)] == []
