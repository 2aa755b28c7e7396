"""For all tests: what was collected stays out of the garbage collector's rounds."""

import gc


def pytest_collection_finish() -> None:
    """Tests that look for leaks collect garbage; without this, each walks through every collected test and its imports."""
    gc.collect()
    gc.freeze()
