"""The page at `/` and what it loads, from static/ beside this file: no build step, no network.

What the page loads stands under `/static/VERSION/`, and VERSION is a digest of it all, so browsers keep it
for ever and never mix the parts of two versions. The page itself is asked for again each time.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable

# Job bodies and names are hostile: nothing inline, nothing from elsewhere, no script out of a text (Trusted
# Types), and nobody may frame the page.
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept-Encoding",
    "X-Content-Type-Options": "nosniff",
}
ASK_AGAIN = {"Cache-Control": "no-cache"}
FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable"}
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
LATER = ("vendor/uplot.js",)
"""What a page loads only when it draws a chart."""


@dataclass(frozen=True)
class Page:
    """One file: its media type, its bytes, the tag by which a browser knows it again, and its headers."""

    kind: str
    content: bytes
    tag: str
    headers: dict[str, str]

    @functools.cached_property
    def packed(self) -> bytes:
        """Its bytes packed by gzip, once somebody asks for them."""
        return gzip.compress(self.content, mtime=0)

    def under(self, prefix: str) -> Page:
        """The page as it is where a proxy serves it below `prefix`."""
        if _BASE not in self.content:
            return self
        base = escape(f"{prefix}/" if prefix else "").encode()
        return _page(self.kind, self.content.replace(_BASE, base), ASK_AGAIN)


_BASE, _VERSION, _PARTS = b"{{base}}", b"{{version}}", b"{{parts}}"


def pages() -> dict[str, Page]:
    """The pages by their paths: the dashboard at `/`, and what it loads."""
    parts = dict(_files(files("presque.dashboard") / "static"))
    index = parts.pop("index.html")
    whole = hashlib.sha256(b"".join(name.encode() + content for name, content in sorted(parts.items())))
    version = whole.hexdigest()[:12]
    # A browser that hears of every module at once need not find them one after the other.
    hints = [
        f'<link rel="modulepreload" href="{{{{base}}}}static/{version}/{name}">'
        for name in sorted(parts)
        if name.endswith(".js") and name not in LATER
    ]
    index = index.replace(_VERSION, version.encode()).replace(_PARTS, "\n".join(hints).encode())
    found = {
        f"/static/{version}/{name}": _page(name.rpartition(".")[2], content, FOR_EVER)
        for name, content in parts.items()
    }
    return found | {"/": _page("html", index, ASK_AGAIN)}


def _page(kind: str, content: bytes, caching: dict[str, str]) -> Page:
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    media = TYPES.get(kind, kind)
    if media.startswith("text/") and "charset" not in media:
        media += "; charset=utf-8"
    return Page(media, content, tag, HEADERS | caching | {"ETag": tag})


def _files(folder: Traversable, at: str = "") -> list[tuple[str, bytes]]:
    """What browsers load of a folder, by the path below it."""
    found = []
    for file in folder.iterdir():
        if file.is_dir():
            found += _files(file, f"{at}{file.name}/")
        elif file.name.rpartition(".")[2] in TYPES:
            found.append((at + file.name, file.read_bytes()))
    return found
