"""Loading settings for a command: a mistake in them is a mistake in how presque was called."""

from __future__ import annotations

from collections.abc import Mapping

from presque.config.loading import Loaded, load
from presque.errors import SetupError
from presque.exits import USAGE, Failure


def loaded(flags: Mapping[str, object] | None = None, *, config: str | None = None) -> Loaded:
    """The settings of this process. Raises `Failure` with the exit code for usage, which no restart cures."""
    try:
        return load(flags, config=config)
    except SetupError as error:
        raise Failure(str(error), USAGE) from None
