"""A collector of traces, as far as tests need one: takes OTLP over HTTP, and keeps the spans."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests import rig

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"
"""What a test says is around a push."""
KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")


@dataclass(frozen=True)
class Span:
    """A span as it came. Ids are hexadecimal; `parent` is "" for the first of a trace."""

    service: str
    name: str
    kind: str
    trace: str
    state: str
    id: str
    parent: str
    links: tuple[str, ...]
    failed: bool
    said: str
    about: dict[str, Any]
    events: dict[str, dict[str, Any]]
    began: int
    ended: int


class Collector:
    """What came so far."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        self.spans: list[Span] = []

    def named(self, *names: str) -> list[Span]:
        """One span of each name, as soon as they are there."""
        rig.eventually(lambda: {one.name for one in self.spans} >= set(names), say=self.described)
        return [next(one for one in self.spans if one.name == name) for name in names]

    def all_named(self, name: str, count: int) -> list[Span]:
        """So many spans of one name."""
        rig.eventually(lambda: sum(one.name == name for one in self.spans) >= count, say=self.described)
        return [one for one in self.spans if one.name == name]

    def described(self) -> str:
        """What came, for a test that waits in vain."""
        return str([(one.service, one.name) for one in self.spans])

    def take(self, body: bytes) -> None:
        """Keep the spans of a request."""
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = _plain(resource.resource.attributes).get("service.name", "")
            for scope in resource.scope_spans:
                self.spans += [_span(service, one) for one in scope.spans]


def _span(service: str, one: Any) -> Span:
    return Span(
        service, one.name, KINDS[one.kind], one.trace_id.hex(), one.trace_state,
        one.span_id.hex(), one.parent_span_id.hex(), tuple(link.span_id.hex() for link in one.links),
        one.status.code == 2, one.status.message,
        _plain(one.attributes), {event.name: _plain(event.attributes) for event in one.events},
        one.start_time_unix_nano, one.end_time_unix_nano,
    )  # fmt: skip


def _plain(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector that takes spans at `/v1/traces`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if self.path == "/v1/traces":
                found.take(body)
            self.send_response(200 if self.path == "/v1/traces" else 404)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        found = Collector(server.server_address[1])
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
