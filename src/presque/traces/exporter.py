"""Sends the spans of this process. Imported by who wants to send any: see `presque.traces`.

OpenTelemetry reads its OTEL_… variables by itself: where to (OTEL_EXPORTER_OTLP_ENDPOINT), in whose name
(OTEL_SERVICE_NAME), which of them (OTEL_TRACES_SAMPLER), whether at all (OTEL_SDK_DISABLED). It leaves to
programs which exporter is meant: OTEL_TRACES_EXPORTER names one, or several with commas, `otlp` unless it is
set, and OTEL_EXPORTER_OTLP_PROTOCOL says how that one speaks.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any, cast

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from presque.errors import SetupError

LAST_S = 5.0
"""How long the end of a process waits for a collector that does not answer."""
EXPORTERS = "opentelemetry_traces_exporter"
PROTOCOLS = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}
PACKAGES = {"otlp_proto_http": "presque[otel]", "otlp_proto_grpc": "opentelemetry-exporter-otlp-proto-grpc"}

_provider: TracerProvider | None = None


def set_up(service: str) -> None:
    """See `presque.traces.set_up`."""
    global _provider
    if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return
    exporters = [_exporter(name) for name in _names()]
    resource = Resource.create()
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": service}))
    _provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    for make in exporters:
        _provider.add_span_processor(cast(Any, Batches(make)))
    trace.set_tracer_provider(_provider)


def shut_down() -> None:
    """See `presque.traces.shut_down`."""
    if _provider is not None:
        within(LAST_S, _provider.shutdown)


def within(seconds: float, step: Callable[[], object]) -> None:
    """Do a step, but wait no longer for it than so many seconds."""
    thread = threading.Thread(target=step, name="presque-traces", daemon=True)
    thread.start()
    thread.join(seconds)


def _names() -> list[str]:
    said = os.environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    names = dict.fromkeys(name.strip() for name in said.split(","))
    return [_otlp() if name == "otlp" else name for name in names if name not in ("", "none")]


def _otlp() -> str:
    environ = os.environ
    asked = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    protocol = (asked or "http/protobuf").strip()
    if protocol not in PROTOCOLS:
        raise SetupError(f"OTEL_EXPORTER_OTLP_PROTOCOL should be {' or '.join(PROTOCOLS)}, not `{protocol}`")
    return PROTOCOLS[protocol]


def _exporter(name: str) -> Callable[[], Any]:
    found = list(entry_points(group=EXPORTERS, name=name))
    try:
        made: Callable[[], Any] = found[0].load()
    except (IndexError, ImportError):
        package = PACKAGES.get(name)
        text = f"traces need the exporter `{name}`, which is not installed: "
        remedy = f"pip install '{package}'" if package else "correct OTEL_TRACES_EXPORTER"
        raise SetupError(text + remedy) from None
    return made


class Batches:
    """Gathers spans and sends them, in each process over connections of its own.

    OpenTelemetry's own batches are made when the first span ends: a worker that forks has no further thread
    before, and a child of it sends over a connection that its parent does not write to. What a child has made
    is sent at its end.
    """

    def __init__(self, exporter: Callable[[], Any]) -> None:
        self._exporter = exporter
        self._lock = threading.Lock()
        self._batches: BatchSpanProcessor | None = None
        self._is_child = False
        self._of_parent: list[BatchSpanProcessor] = []
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._in_child)

    def _in_child(self) -> None:
        if self._batches is not None:
            self._of_parent.append(self._batches)  # its exporter must not close what the parent still uses
        self._lock, self._batches, self._is_child = threading.Lock(), None, True

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Nothing to do."""

    def _on_ending(self, span: Any) -> None:
        """Nothing to do."""

    def on_end(self, span: Any) -> None:
        """Take a span."""
        with self._lock:
            if self._batches is None:
                self._batches = BatchSpanProcessor(self._exporter())
                if self._is_child:
                    atexit.register(within, LAST_S, self.shutdown)
        self._batches.on_end(span)

    def shutdown(self) -> None:
        """Send what is left."""
        if self._batches is not None:
            self._batches.shutdown()  # type: ignore[no-untyped-call, unused-ignore]

    def force_flush(self, timeout_millis: int | None = None) -> bool:
        """Send what there is now."""
        return self._batches is None or self._batches.force_flush(timeout_millis)
