"""The log of a worker. A handler or a filter of the application that raises does not stop a worker."""

from __future__ import annotations

import contextlib
import logging
from typing import Any


class Log:
    """What the standard logger of this name offers a worker, and never raises."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def is_enabled_for(self, level: int) -> bool:
        """Whether a line of this level would be written."""
        return self._logger.isEnabledFor(level)

    def debug(self, line: str, *values: Any) -> None:
        """For finding faults."""
        self._say(logging.DEBUG, line, values)

    def info(self, line: str, *values: Any) -> None:
        """What happens."""
        self._say(logging.INFO, line, values)

    def warning(self, line: str, *values: Any, extra: dict[str, Any] | None = None) -> None:
        """What somebody should look at."""
        self._say(logging.WARNING, line, values, extra=extra)

    def error(self, line: str, *values: Any) -> None:
        """What somebody must look at."""
        self._say(logging.ERROR, line, values)

    def exception(self, line: str, *values: Any) -> None:
        """The same with the traceback of the exception that is being handled."""
        self._say(logging.ERROR, line, values, exc_info=True)

    def _say(self, level: int, line: str, values: tuple[Any, ...], **more: Any) -> None:
        if self._logger.isEnabledFor(level):
            with contextlib.suppress(Exception):
                self._logger.log(level, line, *values, stacklevel=3, **more)


log = Log("presque.worker")
