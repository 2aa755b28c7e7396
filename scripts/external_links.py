"""The links of the documentation that lead elsewhere: their form is checked, and with --ask whether there is
still something behind them.

    python scripts/external_links.py [--list] [--ask]

`make docs` checks the form, LINKS=1 asks too: a few requests at a time, to other people's servers, so it is
part of no test. What answers 404 or 410, or whose host does not exist, fails; what refuses programs (403, 429
…) or does not answer is named only.
"""

import argparse
import re
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from socket import gaierror
from typing import NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "bench/*.md", "docs/*.md")
AT_ONCE, TIMEOUT = 8, 20.0
OURS = re.compile(
    r"(^|\.)(example|test|invalid|localhost|internal)(\.(com|org|net))?$|^[a-z0-9-]+$|^[\d.:\[\]]+$"
)
"""Hosts that stand for somebody's own: RFC 2606, names without a dot, addresses."""
_fence = re.compile(r"^(```|~~~).*?^\1\s*$", re.MULTILINE | re.DOTALL)
_code = re.compile(r"`[^`\n]*`")
_link = re.compile(
    r"\]\(\s*<?(https?://[^\s()>]*(?:\([^\s()]*\)[^\s()>]*)*)|<(https?://[^\s>]+)>|(?<![(<\w])(https?://[^\s)>\]|…\"“”]+)"
)


class Link(NamedTuple):
    page: str
    line: int
    url: str


def links_in(page: str, text: str) -> Iterator[Link]:
    """Yields the links of a Markdown text in order; those in code are examples, and left out."""
    blank = _code.sub(
        lambda code: " " * len(code[0]), _fence.sub(lambda code: re.sub(r"[^\n]", " ", code[0]), text)
    )
    for match in _link.finditer(blank):
        url = next(filter(None, match.groups())).rstrip(".,;:'\"")
        if not OURS.search(urlsplit(url).hostname or ""):
            yield Link(page, blank.count("\n", 0, match.start()) + 1, url)


def wrong_with(url: str) -> str:
    """Returns what is wrong with a link's form; "": nothing."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "https":
        return "not https"
    if "." not in host or parts.username or not re.fullmatch(r"[a-z0-9.-]+", host):
        return "no host that everybody can reach"
    if re.search(r"[^!-~]|[<>\"{}|\\^`]", url):
        return "characters that an address must escape (RFC 3986)"
    if re.search(r"[?&](utm_|fbclid|gclid)", url):
        return "a parameter that tracks readers"
    return ""


def asked(url: str) -> tuple[bool, str]:
    """Returns whether a link is dead, and what came; "": something answered well."""
    try:
        request = Request(url, headers={"user-agent": "Mozilla/5.0 (sluice docs)", "range": "bytes=0-0"})
        with urlopen(request, timeout=TIMEOUT):
            return False, ""
    except HTTPError as answer:
        return answer.code in (404, 410), "" if answer.code == 416 else str(answer.code)
    except URLError as error:
        return isinstance(error.reason, gaierror), str(error.reason)
    except (OSError, ValueError) as error:
        return False, str(error)


def found(root: Path = ROOT) -> list[Link]:
    pages = sorted({page for pattern in PAGES for page in root.glob(pattern)})
    return [link for page in pages for link in links_in(str(page.relative_to(root)), page.read_text())]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--ask", action="store_true")
    options = parser.parse_args()
    links = found()
    failed = [
        f"{link.page}:{link.line}: {link.url}: {wrong}" for link in links if (wrong := wrong_with(link.url))
    ]
    if options.list:
        print(*(f"{link.page}:{link.line}: {link.url}" for link in links), sep="\n")
    if options.ask:
        failed += _dead(links)
    for line in failed:
        print(line, file=sys.stderr)
    print(f"{len({link.url for link in links})} links elsewhere, {len(failed)} to mend")
    return bool(failed)


def _dead(links: Iterable[Link]) -> list[str]:
    """Returns a line for each dead link. Those that could not be judged are printed."""
    places: dict[str, list[str]] = {}
    for link in links:
        places.setdefault(link.url.partition("#")[0], []).append(f"{link.page}:{link.line}")
    dead: list[str] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for (url, where), (gone, came) in zip(places.items(), pool.map(asked, places), strict=True):
            line = f"{where[0]}: {url}: {came}"
            if gone:
                dead.append(line)
            elif came:
                print(f"not judged: {line}")
    return dead


if __name__ == "__main__":
    sys.exit(main())
