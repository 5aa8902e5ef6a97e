"""What presque's spans are called and say, and how they hang together. Imported by who traces alone: see
`presque.traces`.

Names follow OpenTelemetry's semantic conventions for messaging, those of the server its conventions for HTTP:

    push mail          PRODUCER, around the request that pushes; its context is the job's `traceparent`
    POST /q/{queue}    SERVER, made by the server for a request that bears a sampled `traceparent`
    command lease      SERVER, the same for a command (WebSocket, `POST /queue`, XMPP)
    process mail       CONSUMER, one for each attempt; a child of the job's `traceparent`, and linked to it
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from presque.errors import OurFault, PresqueError
from presque.version import __version__

_W3C = TraceContextTextMapPropagator()
_FAILED = StatusCode.ERROR


def _tracer() -> trace.Tracer:
    return trace.get_tracer("presque", __version__)


def text_of(found: SpanContext) -> str:
    """A context as the header `traceparent` says it."""
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{int(found.trace_flags) & 1:02x}"


def context_of(traceparent: str | None, tracestate: str | None = None) -> SpanContext | None:
    """What a `traceparent` says, with what belongs to it; None if there is none that can be read."""
    if traceparent is None:
        return None
    headers = {"traceparent": traceparent, **({"tracestate": tracestate} if tracestate else {})}
    found = trace.get_current_span(_W3C.extract(headers, contexts.Context()))
    known = found.get_span_context()
    return known if known.is_valid else None


def _child_of(parent: SpanContext | None) -> contexts.Context:
    """Where a span begins whose parent may be in another process, and is in no case what runs around it."""
    empty = contexts.Context()
    return empty if parent is None else trace.set_span_in_context(NonRecordingSpan(parent), empty)


# --- who pushes


def current(*, sampled: bool = False) -> dict[str, str]:
    """The headers that tell of what runs here; none outside of any span, or of one that nobody will see."""
    found = trace.get_current_span().get_span_context()
    if not found.is_valid or (sampled and not found.trace_flags.sampled):
        return {}
    state = found.trace_state.to_header()
    return {"traceparent": text_of(found), **({"tracestate": state} if state else {})}


@contextmanager
def pushing(
    queue: str, count: int | None, given: str | None, host: str, port: int
) -> Iterator[Callable[[Any], None]]:
    """A span around a push of one job, or of `count`. It gets the id that the push brings.

    A `traceparent` that was `given` stays the job's own, and the span is linked to it.
    """
    about: dict[str, Any] = {
        **_messaging("push", "send", queue),
        "server.address": host,
        "server.port": port,
    }
    if count is not None:
        about["messaging.batch.message_count"] = count
    theirs = context_of(given)
    span = _tracer().start_span(
        f"push {queue}",
        kind=SpanKind.PRODUCER if theirs is None else SpanKind.CLIENT,
        attributes=about,
        links=[] if theirs is None else [Link(theirs)],
    )
    with trace.use_span(span, end_on_exit=True, record_exception=True, set_status_on_exception=True):
        try:
            yield lambda id: span.set_attribute("messaging.message.id", str(id))
        except Exception as error:
            span.set_attribute("error.type", str(getattr(error, "code", "") or type(error).__qualname__))
            raise


def _messaging(name: str, kind: str, queue: str) -> dict[str, Any]:
    return {
        "messaging.system": "presque",
        "messaging.operation.name": name,
        "messaging.operation.type": kind,
        "messaging.destination.name": queue,
    }


# --- who does jobs


def begin_job(queue: str, id: str, attempt: int, trace: tuple[str | None, str | None], worker: str) -> Span:
    """The span of one attempt at a job, which was pushed with this `traceparent` and `tracestate`."""
    pushed = context_of(*trace)
    about = {
        **_messaging("process", "process", queue),
        "messaging.message.id": id,
        "messaging.client.id": worker,
        "messaging.presque.message.delivery_attempt": attempt,
    }
    return _tracer().start_span(
        f"process {queue}",
        context=_child_of(pushed),
        kind=SpanKind.CONSUMER,
        attributes=about,
        links=[] if pushed is None else [Link(pushed)],
    )


def end_job(
    span: Span, outcome: str, error: str, raised: str, fields: Mapping[str, Any], ago_s: float
) -> None:
    """The attempt ended `ago_s` seconds ago: done (`ack`), failed (`fail`) or given back (`release`)."""
    span.set_attribute("messaging.presque.outcome", outcome)
    if outcome == "fail":
        kind = raised or "_OTHER"
        span.set_attribute("error.type", kind)
        span.set_status(_FAILED, error)
        message = error.removeprefix(f"{kind}: ")
        about = {"exception.type": kind, "exception.message": message}
        if trace_text := fields.get("backtrace"):
            about["exception.stacktrace"] = str(trace_text)
        span.add_event("exception", about)
    elif error:
        span.set_attribute("messaging.presque.reason", error)
    span.end(time.time_ns() - int(ago_s * 1e9))


def text_of_span(span: Span) -> str:
    """The `traceparent` for what belongs to a span in another process."""
    return text_of(span.get_span_context())


def enter(span: Span | str, tracestate: str | None = None) -> None:
    """From here on, in this thread's or task's context, spans belong to this one. Another process names it by
    its `traceparent`, and has the job's `tracestate`."""
    if isinstance(span, str):
        found = context_of(span, tracestate)
        if found is None:
            return
        span = NonRecordingSpan(found)
    contexts.attach(trace.set_span_in_context(span))


# --- the server


def served(name: str, parent: SpanContext, about: Mapping[str, Any], status: int, seconds: float) -> None:
    """A request that was answered now, and took so many seconds."""
    now = time.time_ns()
    span = _tracer().start_span(
        name,
        context=_child_of(parent),
        kind=SpanKind.SERVER,
        attributes={**about, "http.response.status_code": status},
        start_time=now - int(seconds * 1e9),
    )
    if status >= 500:
        span.set_attribute("error.type", str(status))
        span.set_status(_FAILED)
    span.end(now)


def command(
    verb: str, queue: str | None, traceparent: str, tracestate: str | None
) -> Callable[[PresqueError | None], None] | None:
    """Begin the span of a command, which is not a request of its own, if its `traceparent` is sampled. What
    is returned ends the span, with the error if there was one."""
    parent = context_of(traceparent, tracestate)
    if parent is None or not parent.trace_flags.sampled:
        return None
    span = _tracer().start_span(
        f"command {verb}",
        context=_child_of(parent),
        kind=SpanKind.SERVER,
        attributes={
            "presque.verb": verb,
            **({} if queue is None else {"messaging.destination.name": queue}),
        },
    )

    def end(error: PresqueError | None) -> None:
        if error is not None:
            span.set_attribute("error.type", error.code)
        if isinstance(error, OurFault):
            span.set_status(_FAILED, str(error))
        span.end()

    return end
