"""Where a request names its caller: the header `Authorization`, the cookie of a session, a link to one job.

A token is never in a URL, where logs, histories and other pages find it. A link may: it is valid for one act
on one job, until a moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from presque.commands.who import Door
from presque.errors import CallerError, TokenUnknown
from presque.http.gate import NotAllowed
from presque.http.proxies import Client

COOKIE = "presque_session"
SUBPROTOCOL = "presque"
IN_A_SUBPROTOCOL = "presque.token."


class Shown(NamedTuple):
    """A token as it was shown, None for none, and where."""

    text: str | None
    door: Door = "header"


def shown(method: str, headers: Mapping[str, str], client: Client, *, live: bool = False) -> Shown:
    """The token that a request of this client shows in its head. The first of these counts: the header, for a
    WebSocket (`live`) a subprotocol, the cookie. Raises `Refused` and `NotAllowed`."""
    said = headers.get("authorization")
    if said is not None:
        scheme, _, text = said.partition(" ")
        if scheme.lower() != "bearer":
            raise TokenUnknown
        return Shown(text.strip())
    if live and (found := _in_subprotocols(headers)) is not None:
        return Shown(found)
    cookie = cookie_of(headers, client)
    if cookie is None:
        return Shown(None)
    if (live or method not in ("GET", "HEAD")) and not (
        "origin" in headers or headers.get("sec-fetch-site") == "same-origin"
    ):
        raise NotAllowed(
            "the cookie of a session works only for pages of this server; "
            "send a token in the header `Authorization`"
        )
    return Shown(cookie, "cookie")


def refuse_in_query(query: Mapping[str, str]) -> None:
    """Raise `CallerError` if there is a token in the URL."""
    for name in ("token", "access_token"):
        if name in query:
            raise CallerError(
                f"`{name}` in a URL is refused: logs and histories keep URLs; "
                "send the token in the header `Authorization: Bearer TOKEN`, and revoke this one"
            )


def subprotocol(headers: Mapping[str, str]) -> str | None:
    """The subprotocol to speak: `presque` if it is offered. Raises `CallerError` for a token that is offered
    alone, since an answer with no subprotocol, or with the token, would not do."""
    offered = _offered(headers)
    if SUBPROTOCOL in offered:
        return SUBPROTOCOL
    if any(one.startswith(IN_A_SUBPROTOCOL) for one in offered):
        raise CallerError(f"offer the subprotocol `{SUBPROTOCOL}` beside `{IN_A_SUBPROTOCOL}TOKEN`")
    return None


def cookie_name(client: Client) -> str:
    """What the cookie of a session is called, for this client. No other name is looked at.

    A browser takes a cookie whose name begins with `__Host-` only over TLS, and only from this very host, so
    nobody else can have planted it (RFC 6265bis, section 4.1.3). It is sent with every path of the host then.
    Under a path of a proxy it should not be, and `__Secure-` promises TLS alone.
    """
    if not client.secure:
        return COOKIE
    return f"__Secure-{COOKIE}" if client.prefix else f"__Host-{COOKIE}"


def cookie_of(headers: Mapping[str, str], client: Client) -> str | None:
    """The cookie of a session that a request of this client has."""
    return _cookie(cookie_name(client), headers.get("cookie", ""))


def set_cookie(value: str, seconds: int, client: Client) -> str:
    """The header that gives a browser a session; one of 0 seconds ends it."""
    flags = "; Secure" if client.secure else ""
    place = f"Path={client.prefix or '/'}; Max-Age={seconds}"
    return f"{cookie_name(client)}={value}; {place}; HttpOnly; SameSite=Strict{flags}"


def _in_subprotocols(headers: Mapping[str, str]) -> str | None:
    found = [one for one in _offered(headers) if one.startswith(IN_A_SUBPROTOCOL)]
    return found[0].removeprefix(IN_A_SUBPROTOCOL) if found else None


def _offered(headers: Mapping[str, str]) -> list[str]:
    return [one.strip() for one in headers.get("sec-websocket-protocol", "").split(",")]


def _cookie(wanted: str, text: str) -> str | None:
    for part in text.split(";"):
        name, _, value = part.strip().partition("=")
        if name == wanted and value:
            return value
    return None
