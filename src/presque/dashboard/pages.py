"""The page at `/` and what it loads, from static/ beside this file: no build step, no network."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from typing import NamedTuple

# Job bodies and names are hostile: nothing inline, nothing from elsewhere, nobody may frame the page.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-cache",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Page(NamedTuple):
    """One file: its media type, its bytes, the tag by which a browser knows it again, and its headers."""

    kind: str
    content: bytes
    tag: str
    headers: dict[str, str]


def pages() -> dict[str, Page]:
    """The pages by their paths: the dashboard at `/`, and what it loads."""
    found = {}
    for file in (files("presque.dashboard") / "static").iterdir():
        path = "/" if file.name == "index.html" else f"/static/{file.name}"
        kind, content = TYPES["." + file.name.rpartition(".")[2]], file.read_bytes()
        if kind.startswith("text/"):
            kind += "; charset=utf-8"
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        found[path] = Page(kind, content, tag, HEADERS | {"ETag": tag})
    return found
