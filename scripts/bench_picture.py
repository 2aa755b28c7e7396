"""Draw docs/bench.svg of the table "At a glance" in bench/REPORT.md: python scripts/bench_picture.py"""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "bench" / "REPORT.md"
PICTURE = ROOT / "docs" / "bench.svg"
NAMES = {
    "sluice": "Sluice, OpenAI's API",
    "sluice-ndjson": "Sluice, NDJSON",
    "nginx": "nginx, plain proxy",
    "haproxy": "HAProxy, plain proxy",
    "envoy": "Envoy, plain proxy",
    "smg": "SMG, of SGLang",
    "rolter": "Rolter",
    "ferrogw": "FerroGW",
    "portkey": "Portkey (Node.js)",
    "litellm": "LiteLLM (Python)",
}
"""What is drawn, by its name in the report: gateways and proxies, not the floors of the bench itself."""
PANELS = (
    ("stream of 1 token, CPU µs", "CPU time of a streamed request, µs"),
    ("token in a burst, CPU µs", "CPU time of a further token, µs"),
    ("added TTFT p50 µs", "Time added to the first token, median, µs"),
)
"""Columns of the table, and what they are called in the picture."""
LIGHT = (
    ".page{fill:#fff}.h{font-weight:600;fill:#0f172a}.n{fill:#0f172a;text-anchor:end}.v{fill:#475569}"
    ".s{fill:#475569;font-size:12px}.us{fill:#0b6e99}.them{fill:#94a3b8}.plain{fill:#cbd5e1}"
)
DARK = (
    ".page{fill:#0d1117}.h,.n{fill:#e6edf3}.v,.s{fill:#9aa7b4}"
    ".us{fill:#4fc3c3}.them{fill:#64748b}.plain{fill:#3b4754}"
)
"""The colours in a browser that prefers dark pages; GitHub's dark theme is of the same background."""
WIDE, ROW, LABEL, BAR = 860, 24, 190, 520


def picture(report: str) -> str:
    """The picture of a report. Raises ValueError where the report has no such table."""
    columns, rows = _glance(report)
    when = re.search(r"^(\d{4}-\d\d-\d\d)T", report, re.MULTILINE)
    machine = re.search(r"^- (\d+ CPUs?: [^;\n]+)", report, re.MULTILINE)
    if when is None or machine is None or not rows:
        raise ValueError("the report has no date, no machine or no table")
    parts, y = [], 74
    for column, title in PANELS:
        at = columns.index(column)
        found = sorted(
            (float(row[at]), name) for name, row in rows.items() if name in NAMES and _is_number(row[at])
        )
        parts.append(f'<text class="h" x="16" y="{y}">{escape(title)}</text>')
        parts += _bars(found, y + 12)
        y += 12 + ROW * len(found) + 40
    about = f"{when[1]}, {machine[1]}; lower is better, the scale is logarithmic. Method and all figures: bench/REPORT.md"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {y}" width="{WIDE}" height="{y}" role="img" '
        'aria-labelledby="title desc" font-family="system-ui, sans-serif" font-size="13">\n'
        '<title id="title">What a gateway costs: CPU time and time to the first token</title>\n'
        f'<desc id="desc">{escape(_said(columns, rows))}</desc>\n'
        f"<style>{LIGHT}@media (prefers-color-scheme:dark){{{DARK}}}</style>\n"
        f'<rect class="page" width="{WIDE}" height="{y}"/>\n'
        '<text font-size="16" class="h" x="16" y="24">What it costs (lower is better)</text>\n'
        f'<text class="s" x="16" y="42">{escape(about)}</text>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _glance(report: str) -> tuple[list[str], dict[str, list[str]]]:
    table = report.partition("## At a glance\n")[2].lstrip("\n").partition("\n\n")[0]
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.splitlines()
        if line.startswith("|")
    ]
    if len(lines) < 3:
        raise ValueError("the report has no table")
    return lines[0], {line[0]: line for line in lines[2:]}


def _bars(found: list[tuple[float, str]], y: int) -> Iterator[str]:
    """Sorted bars; the shortest has a tenth of the width, so that each is seen."""
    low, high = math.log(found[0][0]), math.log(found[-1][0])
    for value, name in found:
        share = 0.1 + 0.9 * (math.log(value) - low) / ((high - low) or 1)
        kind = "us" if name.startswith("sluice") else "plain" if "plain proxy" in NAMES[name] else "them"
        wide = round(share * BAR)
        text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        yield (
            f'<text class="n" x="{LABEL}" y="{y + 16}">{escape(NAMES[name])}</text>'
            f'<rect class="{kind}" x="{LABEL + 10}" y="{y + 3}" width="{wide}" height="{ROW - 7}" rx="2"/>'
            f'<text class="v" x="{LABEL + 16 + wide}" y="{y + 16}">{text}</text>'
        )
        y += ROW


def _said(columns: list[str], rows: dict[str, list[str]]) -> str:
    """The figures in words, for who does not see the picture."""
    return " ".join(
        f"{title}: "
        + ", ".join(
            f"{NAMES[name]} {row[columns.index(column)]}" for name, row in rows.items() if name in NAMES
        )
        + "."
        for column, title in PANELS
    )


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", text) is not None and float(text) > 0


if __name__ == "__main__":
    PICTURE.write_text(picture(REPORT.read_text()))
