"""Which server a client talks to, and what it says of itself in every request.

What is not given is read from the environment: `PRESQUE_URL` and `PRESQUE_TOKEN`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from presque.errors import shown
from presque.version import __version__

DEFAULT_URL = "http://127.0.0.1:5000"


@dataclass(frozen=True, slots=True)
class Address:
    """A server: where to connect, and what comes before every path. `host` has no brackets."""

    url: str
    tls: bool
    host: str
    port: int
    prefix: str
    authority: str
    """What the header `Host` says."""


def server(base_url: str | None = None) -> Address:
    """The server at this URL; without one, that of `PRESQUE_URL`, else the one on this machine.

    Raises `ValueError` with a sentence for a text that is not the URL of a server.
    """
    if base_url is not None:
        return _read(base_url)
    found = os.environ.get("PRESQUE_URL")
    if not found:
        return _read(DEFAULT_URL)
    try:
        return _read(found)
    except ValueError as error:
        raise ValueError(f"PRESQUE_URL: {error}") from None


def token_of(token: str | None = None) -> str | None:
    """The token as given, else that of `PRESQUE_TOKEN`. Raises `ValueError` for one that fits no header."""
    if token is not None:
        return _checked(token)
    found = os.environ.get("PRESQUE_TOKEN")
    if not found:
        return None
    try:
        return _checked(found)
    except ValueError as error:
        raise ValueError(f"PRESQUE_TOKEN: {error}") from None


def own_headers(token: str | None) -> dict[str, str]:
    """The headers of every request."""
    headers = {"User-Agent": f"presque-client/{__version__}", "Accept": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {_checked(token)}"
    return headers


def _checked(token: str) -> str:
    if not token.isascii() or not token.isprintable() or " " in token or not token:
        raise ValueError("a token is visible ASCII characters without a space")
    return token


def _read(base_url: str) -> Address:
    wrong = f"`{shown(base_url)}` is not a server URL: use http://host:port"
    if not base_url.isascii() or not base_url.isprintable() or " " in base_url:
        raise ValueError(wrong)
    try:
        url = urlsplit(base_url)
        host, port = url.hostname, url.port
        if host is not None:
            host.encode("idna")  # as the resolver does it; refuses labels that are too long
    except ValueError:
        raise ValueError(wrong) from None
    if url.scheme not in ("http", "https") or not host or port == 0 or url.query or url.fragment:
        raise ValueError(wrong)
    if url.username is not None or url.password is not None:
        raise ValueError("a server URL holds no user and no password: use a token")
    tls = url.scheme == "https"
    authority = (f"[{host}]" if ":" in host else host) + ("" if port is None else f":{port}")
    path = url.path.rstrip("/")
    return Address(base_url.rstrip("/"), tls, host, port or (443 if tls else 80), path, authority)
