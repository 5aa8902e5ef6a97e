"""Spans of the requests that a server answers: only of those that carry a sampled `traceparent`. Imported by
servers that make traces alone.

A request is counted when it is answered, in the tally of its verb. That of a traced request makes its span as
well, after the fact, so that all others pay nothing for it.
"""

from __future__ import annotations

from opentelemetry.trace import SpanContext

from presque.http.head import Head
from presque.http.tallies import Tally
from presque.masking import without_tokens
from presque.traces import spans
from presque.verbs import VERBS


class TracedTally(Tally):
    """Counts the answer to one request, and makes a span of it."""

    __slots__ = ("_about", "_name", "_parent", "_tally")

    def __init__(self, tally: Tally, head: Head, parent: SpanContext, scheme: str) -> None:
        self.verb = tally.verb
        self._tally, self._parent = tally, parent
        verb = VERBS.get(tally.verb)
        self._name = f"{head.method} {verb.path}" if verb is not None else head.method
        self._about: dict[str, str | int] = {
            "http.request.method": head.method,
            # Without the query, which may hold a link or the proof of a lease.
            "url.path": without_tokens(head.path),
            "url.scheme": scheme,
            "presque.verb": tally.verb,
        }
        host = head.headers.get("host", "")
        name, _, port = host.rpartition(":")
        if name and port.isdigit():
            self._about |= {"server.address": name.strip("[]"), "server.port": int(port)}
        elif host:
            self._about["server.address"] = host
        if verb is not None:
            self._about["http.route"] = verb.path

    def add(self, status: bytes, seconds: float) -> None:
        """Count the answer."""
        self._tally.add(status, seconds)
        spans.served(self._name, self._parent, self._about, int(status), seconds)


def tally_of(tally: Tally, head: Head, *, tls: bool) -> Tally:
    """Where to count the answer to a request: a traced one, if it asks for that."""
    parent = spans.context_of(head.headers.get("traceparent"), head.headers.get("tracestate"))
    if parent is None or not parent.trace_flags.sampled:
        return tally
    return TracedTally(tally, head, parent, "https" if tls else "http")
