import os
from pathlib import Path

import pytest

from tests.deploy.images import build, environment


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the image of the last commit and the files beside it; SLUICE_TEST_IMAGE: one that is there."""
    if given := os.environ.get("SLUICE_TEST_IMAGE"):
        return Path(given)
    out = tmp_path_factory.mktemp("built")
    build(out, environment(out))
    return out
