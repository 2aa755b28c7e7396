"""The version of the installed distribution; pyproject.toml is the only place where it is written."""

DISTRIBUTION = "sluice-gateway"


def version() -> str:
    """As installed; "0+unknown" from a checkout that was never installed."""
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed_version

    try:
        return installed_version(DISTRIBUTION)
    except PackageNotFoundError:
        return "0+unknown"
