"""Where things live.

Everything of ours is called `hermes-llm`: `~/.hermes` and most `HERMES_*` variables belong to Nous' Hermes Agent.
"""

from pathlib import Path

PACKAGE = Path(__file__).parent


def catalog() -> Path:
    """catalog.yaml: inside the package when installed from a wheel, beside it in a checkout."""
    installed = PACKAGE / "catalog.yaml"
    return installed if installed.exists() else PACKAGE.parent / "catalog.yaml"


def asset(name: str) -> Path:
    """A file that ships inside the package: the demo model and its tools."""
    return PACKAGE / "assets" / name
