"""Sites for the browser: a hostile one, and one that writes down what it is asked."""

from __future__ import annotations

import contextlib
import http.server
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

SCRIPT = (Path(__file__).parent / "hostile_page.js").read_text("utf-8")
GOES = {
    "/refresh": '<meta http-equiv="refresh" content="0;url={to}">',
    "/go": '<script>location.replace("{to}")</script>',
    "/post": '<form method=post action="{to}"></form><script>document.forms[0].submit()</script>',
    "/report": '<img src="http://nowhere.example/">',
}
WORKER = """
self.addEventListener("activate", (event) => event.waitUntil(clients.claim()));
self.addEventListener("message", (event) => event.waitUntil(
  fetch(event.data, { mode: "no-cors" }).catch(() => null).then(() => event.source.postMessage("done"))));
"""


class Site(http.server.ThreadingHTTPServer):
    """A site. `asked` is each request so far: method, path, and headers with names in lower case."""

    daemon_threads = True
    request_queue_size = 200
    asked: list[tuple[str, str, dict[str, str]]]


class _Hostile(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Site

    def answer(self) -> None:
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.asked.append((self.command, url.path, headers))
        self.rfile.read(int(headers.get("content-length", 0)))
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        to = query.get("to", "")
        if url.path == "/hop":
            self.send(int(query.get("code", "302")), "", Location=to)
        elif url.path == "/sw.js":
            self.send(200, WORKER, Content_Type="text/javascript")
        elif url.path == "/page":
            self.send(200, "<!doctype html><body><script src=/page.js></script>")
        elif url.path == "/page.js":
            self.send(200, SCRIPT, Content_Type="text/javascript; charset=utf-8")
        elif url.path == "/report":
            self.send(200, GOES["/report"], Content_Security_Policy=f"img-src 'none'; report-uri {to}")
        elif url.path in GOES:
            self.send(200, f"<!doctype html><body>{GOES[url.path].format(to=to)}")
        else:
            self.send(404, "")

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_HEAD = answer  # noqa: N815

    def send(self, status: int, body: str, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content_Type": "text/html", "Cache_Control": "no-store", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        data = body.encode()
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            super().handle()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@contextlib.contextmanager
def site(pem: Path | None = None) -> Iterator[Site]:
    """A site on a free port of 127.0.0.1; with a certificate it speaks TLS."""
    with Site(("127.0.0.1", 0), _Hostile) as found:
        found.asked = []
        if pem is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(pem)
            found.socket = context.wrap_socket(found.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=found.serve_forever)
        thread.start()
        try:
            yield found
        finally:
            found.shutdown()
            thread.join()
