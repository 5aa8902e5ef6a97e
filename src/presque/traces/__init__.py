"""Whether this process traces: the one look that code pays which traces only if somebody wants traces.

Traces are made with OpenTelemetry (`pip install 'presque[otel]'`). A program that uses it has imported it;
the client and the worker then take part in its traces. `set_up` is for processes that are presque's own.
"""

from __future__ import annotations

import sys
from types import ModuleType

from presque.errors import SetupError

MISSING = "traces need OpenTelemetry: install it with pip install 'presque[otel]'"


def tracing() -> ModuleType | None:
    """`presque.traces.spans` if this process has imported OpenTelemetry, else None."""
    if "opentelemetry.trace" not in sys.modules:
        return None
    from presque.traces import spans  # it imports OpenTelemetry, which not everybody has

    return spans


def set_up(service: str) -> None:
    """Send the spans of this process to where the OTEL_… variables say, in the name of this service unless
    they name it. A program that has set up OpenTelemetry by itself is left as it is. Raises `SetupError`."""
    try:
        from presque.traces import exporter
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("opentelemetry"):
            raise
        raise SetupError(MISSING) from None
    exporter.set_up(service)


def shut_down() -> None:
    """Send what is left, within a few seconds, and no more spans."""
    exporter = sys.modules.get("presque.traces.exporter")
    if exporter is not None:
        exporter.shut_down()
