"""The version, also of the distribution: a test holds it equal to pyproject.toml's, so that reading it costs
nothing."""

VERSION = "0.1.0"
