"""Finds out whether a runtime is installed, without importing it. Knows nothing of models."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed_version(distribution: str) -> str | None:
    """Of an installed distribution, from its metadata alone; None if it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def absence_reason(distribution: str) -> str | None:
    """The sentence for a distribution that is missing, None if it is installed."""
    if installed_version(distribution) is not None:
        return None
    return f"{distribution} is not installed; get it with: pip install {distribution}"
