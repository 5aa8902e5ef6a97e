"""Reads the head of one request: the request line and the headers, up to the empty line.

httptools (llhttp) parses; what it lets pass and should not is refused here (RFC 9112): two ways to tell a
body's length at once, no Host or two, more headers than anybody needs. A head that was refused says
nothing reliable about where the request ends, so the connection is closed after the answer.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import httptools
import msgspec

from presque.errors import BodyTooLarge, CallerError

MOST_BYTES = 16 * 1024
MOST_HEADERS = 64

# Versions that the parser would refuse as bytes that are not HTTP at all: any but 1.0 and 1.1, and 0.9, whose
# request line names none (RFC 9112, section 2.3).
_LINE = re.compile(rb"[!#-'*+\-.0-9A-Z^-z|~]+ [/*h][!-~]*(?: HTTP/(\d\.\d))?\r\n").match
_ABSOLUTE = re.compile(r"https?://([^/?#@]+)(/[^?#]*)?\Z", re.IGNORECASE).match
_TLS = 0x16  # a handshake of TLS begins with it (RFC 8446, section 5.1)
_A, _Z, _CR = b"AZ\r"

# Headers of which the first could as well be meant as the last.
_SINGLE = frozenset({"authorization", "idempotency-key", "presque-lease", "x-presque-workerid"})


class BadHead(CallerError):
    """The head cannot be understood, or must not be. `status`, the lines `cors` and `classic`, how errors are
    written on this path if that is known, are for the answer."""

    code = "bad-request"

    def __init__(self, message: str, status: int = 400, cors: bytes = b"", *, classic: bool = True) -> None:
        super().__init__(message)
        self.status = status
        self.cors = cors
        self.classic = classic


class LargeBody(BodyTooLarge, BadHead):
    """The head says that the body is larger than this server takes, or its chunks turn out to be."""

    def __init__(self, message: str, cors: bytes = b"", *, classic: bool = True) -> None:
        BadHead.__init__(self, message, 413, cors, classic=classic)


class Head(msgspec.Struct, frozen=True):
    """One request without its body. Header names are in lower case, values as they came.

    A target in absolute form has been taken apart: `path` is its path, and its host takes the place of `Host`
    (RFC 9112, section 3.2.2).
    """

    version: str
    method: str
    path: str
    query: str
    headers: dict[str, str]
    length: int
    chunked: bool
    keep_alive: bool
    upgrade: bool
    expects_continue: bool


class _Collector:
    """What httptools calls while it parses."""

    def __init__(self) -> None:
        self.url = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.completed = 0
        self.keep_alive = False
        self.parser: httptools.HttpRequestParser | None = None
        self.overran = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.strip(b" \t")))  # llhttp leaves what is behind

    def on_headers_complete(self) -> None:
        self.completed += 1
        # Asked now, since the parser forgets it at the end of a message, which for a GET is here, too.
        self.keep_alive = self.parser is not None and self.parser.should_keep_alive()

    def on_body(self, _body: bytes) -> None:
        self.overran = True


def check_first(byte: int) -> None:
    """Check the first byte of a request. Raises `BadHead` if no request begins with it, so that a client of
    another protocol is told at once, and not when the time for a head is over."""
    if byte == _TLS:
        raise BadHead(
            "this port speaks HTTP without TLS: write http:// in front of the address, not https://"
        )
    if not _A <= byte <= _Z and byte != _CR:
        raise BadHead("the request cannot be read: it should begin with a method in capitals, such as GET")


def read(head: bytes) -> Head:
    """Understand one head, which ends with its empty line. Raises `BadHead`."""
    line = _LINE(head)
    if line is not None and line[1] not in (b"1.0", b"1.1"):
        raise BadHead("the request is not HTTP/1.1", 505)
    found = _Collector()
    parser = found.parser = httptools.HttpRequestParser(found)
    upgrade = False
    try:
        parser.feed_data(head)
    except httptools.HttpParserUpgrade:
        upgrade = True
    except httptools.HttpParserError as error:
        raise BadHead(f"the request cannot be read: {_reason(error)}") from None
    if found.completed != 1 or found.overran:
        raise BadHead("the request cannot be read: the headers end in the middle")
    if len(found.headers) > MOST_HEADERS:
        raise BadHead(f"the request has more than {MOST_HEADERS} headers", 431)

    version = parser.get_http_version()
    headers: dict[str, str] = {}
    lengths: list[bytes] = []
    encodings: list[bytes] = []
    hosts = 0
    for name, value in found.headers:
        if name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            encodings.append(value)
        elif name == b"host":
            hosts += 1
        text, told = name.decode("latin-1"), value.decode("latin-1")
        if text in headers:
            if text in _SINGLE:
                raise BadHead(f"the header {text.title()} is given twice")
            told = f"{headers[text]}, {told}"
        headers[text] = told
    if hosts != 1:
        raise BadHead(f"the request should have exactly one Host header, not {hosts}")
    if encodings and (lengths or version == "1.0"):
        raise BadHead("the request has a Transfer-Encoding that its Content-Length or version forbids")
    if encodings and [e.strip().lower() for e in encodings] != [b"chunked"]:
        raise BadHead("the only Transfer-Encoding supported is chunked", 501)
    if len(lengths) > 1:
        raise BadHead("the request has more than one Content-Length")
    if parser.get_method() == b"CONNECT":
        raise BadHead("CONNECT is not supported", 501)
    path, _, query = found.url.decode("latin-1").partition("?")
    if not path.startswith("/"):
        absolute = _ABSOLUTE(path)
        if absolute is not None:
            headers["host"], path = absolute[1], absolute[2] or "/"
        elif path != "*":
            raise BadHead("the target of the request is neither a path nor a URL of http")
    return Head(
        version=version,
        method=parser.get_method().decode(),
        path=path,
        query=query,
        headers=headers,
        length=int(lengths[0]) if lengths else 0,
        chunked=bool(encodings),
        keep_alive=version == "1.1" and found.keep_alive,
        upgrade=upgrade or parser.should_upgrade(),
        expects_continue=headers.get("expect", "").lower() == "100-continue",
    )


def segment(raw: str) -> str:
    """Decode one part of a path, once. The split on `/` has been made, so %2F becomes part of a name
    (and is refused there), never a second route to the same queue."""
    if "%" not in raw:
        return raw
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise CallerError("the path is not UTF-8") from None


def fields(query: str) -> dict[str, str]:
    """Take a query string apart. A field given twice is an error: nobody can tell which one is meant."""
    found: dict[str, str] = {}
    for part in query.split("&"):
        if not part:
            continue
        name, _, value = part.partition("=")
        try:
            key = unquote_to_bytes(name.replace("+", " ")).decode()
            text = unquote_to_bytes(value.replace("+", " ")).decode()
        except UnicodeDecodeError:
            raise CallerError("the query is not UTF-8") from None
        if key in found:
            raise CallerError(f"`{key}` is given twice")
        found[key] = text
    return found


def _reason(error: Exception) -> str:
    return str(error).strip().rstrip(".").lower() or "it is not HTTP"
