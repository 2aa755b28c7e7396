"""The README's configurations fit together. (tests/docs runs its commands and its code.)"""

import re
from pathlib import Path

from sluice.config.loader import check
from tests.config.test_values import bundled

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
ENVIRON = {"OPENAI_API_KEY": "x", "ANTHROPIC_API_KEY": "x"}


def blocks() -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)


def problems(text: str, tmp_path: Path) -> list[str]:
    path = tmp_path / "gateway.yaml"
    path.write_text(text.replace("sha256:…", "sha256:" + "0" * 64))
    return [
        str(problem) for problem in check(str(path), environ=ENVIRON, find=bundled().__getitem__).problems
    ]


def test_the_real_provider_configuration_is_good(tmp_path: Path) -> None:
    assert problems(blocks()[0], tmp_path) == []


def test_the_routing_example_fits_into_it(tmp_path: Path) -> None:
    real = blocks()[0]
    head, _, tail = real.partition("aliases:")
    assert problems(head + blocks()[1] + tail[tail.index("\nkeys:") :], tmp_path) == []


def test_the_limits_fit_into_it_too(tmp_path: Path) -> None:
    upstreams = blocks()[0].partition("\naliases:")[0]
    assert problems(upstreams + "\n" + blocks()[2], tmp_path) == []


def test_the_issuers_fit_into_it_too(tmp_path: Path) -> None:
    assert problems(blocks()[0] + blocks()[3], tmp_path) == []
