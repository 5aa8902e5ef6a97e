"""One function per page. Everything comes from static/ beside this file: no build step, no network."""

from __future__ import annotations

import hashlib
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

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


def pages() -> list[BaseRoute]:
    """The routes of the dashboard: its page at `/`, and what that page loads."""
    static = files("presque.dashboard") / "static"
    routes: list[BaseRoute] = []
    for file in static.iterdir():
        path = "/" if file.name == "index.html" else f"/static/{file.name}"
        routes.append(_page(path, file.read_bytes(), TYPES["." + file.name.rpartition(".")[2]]))
    return routes


def _page(path: str, content: bytes, media_type: str) -> Route:
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'

    async def endpoint(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=HEADERS | {"ETag": tag})
        return Response(content, headers=HEADERS | {"ETag": tag}, media_type=media_type)

    return Route(path, endpoint, methods=["GET"])
