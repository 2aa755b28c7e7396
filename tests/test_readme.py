"""The README's configuration can be used as it stands."""

import re
from pathlib import Path

from gateway.configfile import check
from tests.test_config_values import bundled

ROOT = Path(__file__).parent.parent
ENVIRON = {"OPENAI_API_KEY": "x", "ANTHROPIC_API_KEY": "x"}


def blocks() -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def problems(text: str, tmp_path: Path) -> list[str]:
    path = tmp_path / "gateway.yaml"
    path.write_text(text.replace("sha256:…", "sha256:" + "0" * 64))
    return [str(problem) for problem in check(str(path), environ=ENVIRON, find=bundled().__getitem__).problems]


def test_the_real_provider_configuration_is_good(tmp_path: Path) -> None:
    assert problems(blocks()[0], tmp_path) == []


def test_the_routing_example_fits_into_it(tmp_path: Path) -> None:
    real = blocks()[0]
    head, _, tail = real.partition("aliases:")
    assert problems(head + blocks()[1] + tail[tail.index("\nkeys:") :], tmp_path) == []


def test_the_limits_fit_into_it_too(tmp_path: Path) -> None:
    assert problems(blocks()[0].partition("\nkeys:")[0] + "\n" + blocks()[2], tmp_path) == []
