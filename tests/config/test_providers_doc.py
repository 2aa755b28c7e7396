"""The configurations of docs/providers.md are good ones."""

import re
from pathlib import Path

import pytest

from sluice.config.loader import check
from sluice.config.vendors import bundled_vendors
from tests.config.test_problems import DIGEST

PAGE = (Path(__file__).parents[2] / "docs" / "providers.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(upstreams:\n.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_good(example: str, tmp_path: Path) -> None:
    names = re.findall(r"^  ([\w-]+):", example, re.MULTILINE)
    tiers = ", ".join(f"[{{upstream: {name}, model: m}}]" for name in names)
    key = tmp_path / "key"
    key.write_text("sk-of-a-file")
    example = re.sub(r"(?<=path: )/[\w/.-]+", str(key), example)
    file = tmp_path / "gateway.yaml"
    aliases = "" if "\naliases:" in example else f"aliases: {{chat: {{tiers: [{tiers}]}}}}"
    file.write_text(f'{example}\n{aliases}\nkeys: [{{id: a, digest: "{DIGEST}", aliases: ["*"]}}]\n')
    environ = {name: "sk-of-the-environment" for name in re.findall(r"\$\{(\w+)\}", example)}
    environ |= {
        vendor.api_key_env: "sk-of-a-vendor" for vendor in bundled_vendors().values() if vendor.api_key_env
    }
    checked = check(str(file), environ=environ)
    assert [str(problem) for problem in (*checked.problems, *checked.warnings)] == []
