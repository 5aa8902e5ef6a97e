"""Who may ask at all. Checked for every request, before any route is looked at.

A browser on this machine can be made to talk to a server on 127.0.0.1 by any page it visits, and here a
plain link can eat a job. So: the Host must be one we answer to (against DNS rebinding), an Origin must be
our own, and what the browser says of the request (Fetch Metadata) must not be cross-site or a prefetch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from presque.errors import CallerError, shown

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::[0-9]*)?\Z").match

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


class NotAllowed(CallerError):
    """The request comes from where requests must not come from. `status` is the answer's status."""

    code = "forbidden"

    def __init__(self, message: str, status: int = 403) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Gate:
    """The Host names this server answers to, and the web origins that may call it besides its own."""

    hosts: frozenset[str]
    origins: frozenset[str]

    @classmethod
    def of(cls, hosts: Iterable[str] = (), origins: Iterable[str] = ()) -> Gate:
        """A gate that lets loopback names through, and these. An IPv6 address comes without brackets."""
        names = (f"[{host}]" if ":" in host else host for host in hosts)
        return cls(frozenset((*LOOPBACK, *map(str.lower, names))), frozenset(map(str.lower, origins)))

    def check(self, method: str, path: str, headers: Mapping[str, str]) -> None:
        """Raise `NotAllowed`, with a sentence that says what to change, unless the request may pass."""
        host = headers["host"].lower()
        if _without_port(host) not in self.hosts:
            raise NotAllowed(
                f"this server does not answer to the host `{shown(host)}`; add it with --allow-host", 421
            )
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site", "none")
        if origin is not None:
            if not self._own(origin.lower(), host):
                raise NotAllowed(
                    f"requests from pages of `{shown(origin)}` are refused; list it in `origins` if wanted"
                )
        elif site not in ("none", "same-origin") and not _opens_page(method, path, headers):
            raise NotAllowed("requests that another site makes through a browser are refused")
        if "prefetch" in headers.get("sec-purpose", "") + headers.get("purpose", ""):
            raise NotAllowed("prefetching is refused: a fetch takes a job")
        if headers.get("content-encoding", "identity").lower() != "identity":
            raise NotAllowed("compressed bodies are not taken; send the JSON as it is", 415)

    def _own(self, origin: str, host: str) -> bool:
        return origin in self.origins or origin in (f"http://{host}", f"https://{host}")


def _opens_page(method: str, path: str, headers: Mapping[str, str]) -> bool:
    """A link elsewhere may open the dashboard's page, which by itself shows and changes nothing."""
    return method == "GET" and path == "/" and headers.get("sec-fetch-mode") == "navigate"


def _without_port(host: str) -> str:
    match = _HOST(host)
    return match[1] if match else ""
