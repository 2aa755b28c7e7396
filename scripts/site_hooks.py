"""Brings into the documentation's pages what stands outside docs/: pages of the repository, and files that
pages link to.

Hooks of MkDocs: https://www.mkdocs.org/user-guide/configuration/#hooks
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CHANGELOG.md", "DECISIONS.md", "CONTRIBUTING.md", "SECURITY.md", "bench/README.md", "bench/REPORT.md",
         "bench/PROFILE.md")  # fmt: skip
"""Of the repository, each as project/NAME."""
LINK = re.compile(r"(!?\[[^\]\n]*\]\()([^)\s#]+)((?:#[^)\s]*)?\))")


def on_files(files: Any, config: Any) -> Any:
    for page in PAGES:
        files.append(File.generated(config, f"project/{page}", abs_src_path=str(ROOT / page)))
    added: set[str] = set()
    for file in list(files.documentation_pages()):
        source = Path(file.abs_src_path)
        for link in LINK.finditer(source.read_text()):
            found = _target(source, link[2])
            if (
                found is None
                or _place(found) in added
                or found.suffix == ".md"
                or (ROOT / "docs") in found.parents
            ):
                continue
            added.add(_place(found))
            if found.is_dir():
                files.append(
                    File.generated(config, _place(found), content=_listing(found, files, config, added))
                )
            else:
                files.append(File.generated(config, _place(found), abs_src_path=str(found)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    if page.file.abs_src_path is None:
        return markdown
    source = Path(page.file.abs_src_path)
    here = posixpath.dirname(page.file.src_uri)

    def linked(link: re.Match[str]) -> str:
        found = _target(source, link[2])
        return link[0] if found is None else link[1] + posixpath.relpath(_place(found), here or ".") + link[3]

    return LINK.sub(linked, markdown)


def _target(source: Path, link: str) -> Path | None:
    """What a page links to, if it is in the repository."""
    if re.match(r"[a-z][a-z0-9+.-]*:|/", link):
        return None
    found = Path(posixpath.normpath(source.parent / link))
    return found if found.exists() and ROOT in found.parents else None


def _place(found: Path) -> str:
    """Where it is among the pages."""
    path = found.relative_to(ROOT)
    if path.parts[0] == "docs":
        return posixpath.join(*path.parts[1:])
    if str(path) in PAGES:
        return f"project/{path}"
    return f"files/{path}.md" if found.is_dir() else f"files/{path}"


def _listing(folder: Path, files: Any, config: Any, added: set[str]) -> str:
    """A page with a link to each file of a folder."""
    lines = [f"# {folder.relative_to(ROOT)}\n\n"]
    for found in sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md"):
        if (place := _place(found)) not in added:
            added.add(place)
            files.append(File.generated(config, place, abs_src_path=str(found)))
        lines.append(f"- [{found.relative_to(folder)}]({found.relative_to(folder.parent)})\n")
    return "".join(lines)
