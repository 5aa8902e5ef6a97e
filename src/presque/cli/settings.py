"""Loading settings for a command: a mistake in them is a mistake in how presque was called."""

from __future__ import annotations

from collections.abc import Mapping

from presque.cli.exits import USAGE, Failure
from presque.config import Loaded, Settings, check_bind, load
from presque.errors import SetupError


def loaded(flags: Mapping[str, object] | None = None, *, config: str | None = None) -> Loaded:
    """The settings of this process. Raises `Failure` with the exit code for usage, which no restart cures."""
    try:
        return load(flags, config=config)
    except SetupError as error:
        raise Failure(str(error), USAGE) from None


def bind_warning(settings: Settings) -> str | None:
    """What to warn of when listening as these settings say. Raises `Failure`, as `loaded` does."""
    try:
        return check_bind(settings)
    except SetupError as error:
        raise Failure(str(error), USAGE) from None
