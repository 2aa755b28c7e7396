"""Write the table of vendors in docs/providers.md anew, of config/vendors.yaml: python
scripts/providers_page.py"""

from pathlib import Path

from sluice.config.vendors import Vendor, bundled_vendors

PAGE = Path(__file__).parents[1] / "docs" / "providers.md"
BEGIN, END = "<!-- scripts/providers_page.py -->\n", "<!-- end -->\n"
HEAD = "| `backend:` | vendor | address | key | what is special |\n|---|---|---|---|---|\n"


def table(vendors: dict[str, Vendor]) -> str:
    """A row for each vendor."""
    return HEAD + "".join(f"| {' | '.join(_cells(name, vendor))} |\n" for name, vendor in vendors.items())


def page(text: str, vendors: dict[str, Vendor]) -> str:
    """The page with its table as it has to be. Raises ValueError where the page has no place for it."""
    before, _, rest = text.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{PAGE} has no place for the table")
    return before + BEGIN + "\n" + table(vendors) + "\n" + END + after


def _cells(name: str, vendor: Vendor) -> tuple[str, ...]:
    key = f"`{vendor.api_key_env}`" if vendor.api_key_env else "none"
    if vendor.key_optional:
        key += ", or none"
    dialect = f"speaks {vendor.backend}" if vendor.backend != "openai" else ""
    options = ", ".join(f"`{option}: {_written(value)}`" for option, value in vendor.options.items())
    special = ". ".join(filter(None, (dialect, options)))
    special = ". ".join(part.removesuffix(".") for part in (special, vendor.note) if part)
    return f"`{name}`", vendor.title, f"`{vendor.base_url}`" if vendor.base_url else "your own", key, special


def _written(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case dict():
            return "{ " + ", ".join(f"{key}: {_written(item)}" for key, item in value.items()) + " }"
    return str(value)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(), bundled_vendors()))
