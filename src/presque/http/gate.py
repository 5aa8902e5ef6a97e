"""Who may ask at all. Checked for every request, before any route is looked at.

A browser on this machine can be made to talk to a server on 127.0.0.1 by any page it visits, and here a
plain link can eat a job. So: the Host must be one we answer to (against DNS rebinding), an Origin must be
our own, and what the browser says of the request (Fetch Metadata) must not be cross-site or a prefetch.

Over plain HTTP, except to this machine itself, a browser says nothing of a GET: neither `Origin` nor Fetch
Metadata. Then an image on a hostile page looks like our own page. What remains is that it is a browser, which
a page cannot hide: a browser that does not say for whom it asks may look but change nothing (`check_change`).

Pages of an origin in the setting `origins` may do all that a program may: they get CORS headers, on refusals
too. They never get cookies: they say in `Authorization` who they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import msgspec

from presque.errors import CallerError, shown
from presque.http.proxies import Client
from presque.verbs import VERBS

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::[0-9]*)?\Z").match

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")

# What a page of a configured origin may read of an answer's head, and send in one of a request.
EXPOSED = (
    "Location, Link, Retry-After, Allow, ETag, Preference-Applied, Idempotent-Replayed, traceparent, "
    "tracestate, Presque-Error, X-Request-Id, Presque-Queue, Presque-Job-Id, Presque-Paused, "
    "Presque-Paused-More"
)
_OF_VERBS = sorted({one.header for verb in VERBS.values() for one in verb.fields.values() if one.header})
_OURS = "Authorization", "Content-Type", "Prefer", "X-Request-Id", "X-presque-workerid", "Presque-Namespace"
SENT = ", ".join((*_OURS, *_OF_VERBS))


class NotAllowed(CallerError):
    """The request comes from where requests must not come from. `status` is the answer's status."""

    code = "forbidden"

    def __init__(self, message: str, status: int = 403) -> None:
        super().__init__(message)
        self.status = status


class Gate(msgspec.Struct, frozen=True):
    """The Host names this server answers to, and the web origins that may call it besides its own."""

    hosts: frozenset[str]
    origins: frozenset[str]

    @classmethod
    def of(cls, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> Gate:
        """A gate that lets loopback names through, and these. An IPv6 address comes without brackets."""
        names = (f"[{host}]" if ":" in host else host for host in hosts)
        return cls(frozenset((*LOOPBACK, *map(str.lower, names))), frozenset(map(str.lower, origins)))

    def check(self, method: str, path: str, headers: Mapping[str, str], client: Client) -> None:
        """Raise `NotAllowed`, with a sentence that says what to change, unless the request may pass."""
        host = (client.host or headers["host"]).lower()
        if _without_port(host) not in self.hosts:
            raise NotAllowed(
                f"this server does not answer to the host `{shown(host)}`; add it with --allow-host", 421
            )
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site", "none")
        if origin is not None:
            if not self._own(origin.lower(), host, client):
                raise NotAllowed(
                    f"requests from pages of `{shown(origin)}` are refused; list it in `origins` if wanted"
                )
        elif site not in ("none", "same-origin") and not _opens_page(method, path, headers):
            raise NotAllowed("requests that another site makes through a browser are refused")
        if "prefetch" in headers.get("sec-purpose", "") + headers.get("purpose", ""):
            raise NotAllowed("prefetching is refused: a fetch takes a job")
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise NotAllowed("compressed bodies are not supported; send the JSON as it is", 415)

    def check_change(self, headers: Mapping[str, str]) -> None:
        """Raise `NotAllowed` for a browser that does not say for which page it wants to change something."""
        if "origin" in headers or "sec-fetch-site" in headers or "authorization" in headers:
            return  # `check` has looked at the first two; a page elsewhere cannot send the third
        agent = headers.get("user-agent", "")
        if agent.startswith("Mozilla/") and "PowerShell" not in agent:
            raise NotAllowed(
                "a browser that does not say which page it acts for may take and change nothing here; "
                "use HTTPS, or send a token in `Authorization`"
            )

    def cors(self, headers: Mapping[str, str]) -> bytes:
        """The headers that let a page of a configured origin read an answer; nothing for any other."""
        origin = headers.get("origin", "")
        if not origin or origin.lower() not in self.origins:
            return b""
        return (
            f"Access-Control-Allow-Origin: {origin}\r\nVary: Origin\r\n"
            f"Access-Control-Expose-Headers: {EXPOSED}\r\n"
        ).encode()

    def preflight(self, method: str, headers: Mapping[str, str]) -> dict[str, str] | None:
        """The answer to a browser that asks whether a page of a configured origin may send this; None for
        anything else. The answer is the same whatever the route: what does not exist says so itself."""
        asks = method == "OPTIONS" and "access-control-request-method" in headers
        if not asks or headers.get("origin", "").lower() not in self.origins:
            return None
        allowed = {
            "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
            "Access-Control-Allow-Headers": SENT,
            "Access-Control-Max-Age": "600",
        }
        if headers.get("access-control-request-private-network") == "true":
            allowed["Access-Control-Allow-Private-Network"] = "true"
        return allowed

    def _own(self, origin: str, host: str, client: Client) -> bool:
        # Without TLS of ours a proxy that says nothing may have spoken it.
        return origin in self.origins or origin in (
            f"https://{host}", *([] if client.secure else [f"http://{host}"])
        )  # fmt: skip


def _opens_page(method: str, path: str, headers: Mapping[str, str]) -> bool:
    """A link elsewhere may open the dashboard's page, which by itself shows and changes nothing."""
    return method == "GET" and path == "/" and headers.get("sec-fetch-mode") == "navigate"


def _without_port(host: str) -> str:
    match = _HOST(host)
    return match[1] if match else ""
