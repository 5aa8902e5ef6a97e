"""Who a client is when its requests come through a proxy: its address, its scheme, the host and the path that
it asked for.

A proxy says so in headers, and so can anybody. They are believed only on connections from the addresses in
the setting `proxies`; on all others they are ordinary headers that mean nothing.

`X-Forwarded-For` grows at its end: each proxy adds the address that it was reached from. So the list is
read from its end, and the first address that is not a proxy of ours is the client; what stands before it the
client may have made up. `Forwarded` (RFC 7239) is read in the same way. A request with both is refused: one
of them has passed a proxy that does not know it, and nobody can tell which.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

import msgspec

from presque.errors import CallerError

Network = IPv4Network | IPv6Network

_INSTEAD_OF_FORWARDED = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host")

_PAIR = re.compile(r'\s*([A-Za-z]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s;,"]*))\s*(;|,|\Z)').match
_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+=:@%-]+)+\Z").match
_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]+)?\Z|([0-9.]+):[0-9]+\Z").match


class Client(msgspec.Struct, frozen=True):
    """Who sends a request."""

    address: str
    """Where from; "" if that has no address."""
    secure: bool = False
    """Whether it came over TLS, as far as we and the proxies that we believe know."""
    host: str | None = None
    """The host that it asked a proxy for, if a believed one says so. It takes the place of `Host`."""
    names: tuple[str, ...] = ()
    """The names in its certificate, as the setting `tls.clients` writes them, if it has shown one that we
    believe."""
    prefix: str = ""
    """What a believed proxy has taken off the path, such as `/presque`. Links begin with it."""


class Proxies:
    """The addresses whose word about their clients is believed."""

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._networks = tuple(networks)

    def trusts(self, address: str) -> bool:
        """Whether a proxy of ours is at this address."""
        if not self._networks:
            return False
        try:
            found = ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self._networks)

    def client(self, direct: Client, headers: Mapping[str, str]) -> Client:
        """The client of a request on a connection from `direct`. Raises `CallerError` for contradictions."""
        if not self.trusts(direct.address):
            return direct
        chain, forwarded = headers.get("x-forwarded-for"), headers.get("forwarded")
        if forwarded is not None and any(name in headers for name in _INSTEAD_OF_FORWARDED):
            raise CallerError("the request has Forwarded and X-Forwarded-…: let the proxy drop one of them")
        prefix = _prefix(headers.get("x-forwarded-prefix", ""))
        if forwarded is not None:
            return self._of_forwarded(direct, forwarded, prefix)
        address = direct.address if chain is None else self._first(direct.address, chain.split(","))[0]
        scheme = headers.get("x-forwarded-proto", "").rpartition(",")[2].strip()
        host = headers.get("x-forwarded-host", "").rpartition(",")[2].strip() or None
        return Client(address, _secure(scheme, direct), host, prefix=prefix)

    def _of_forwarded(self, direct: Client, text: str, prefix: str) -> Client:
        hops = _hops(text)
        address, at = self._first(direct.address, [hop.get("for", "") for hop in hops])
        # The proxy that the client has reached knows best what it was asked for; those behind it are ours.
        told = ChainMap(*hops[at:])
        secure, host = _secure(told.get("proto", ""), direct), told.get("host") or None
        return Client(address, secure, host, prefix=prefix)

    def _first(self, nearest: str, chain: Sequence[str]) -> tuple[str, int]:
        """The client of a chain of addresses, the last that is not a proxy of ours, and where in the chain a
        proxy of ours has told of it. What is not written as an address ends the chain, so that it cannot be
        used to pass for another."""
        found, at = nearest, len(chain)
        while at:
            at -= 1
            address = normal(chain[at])
            if address is None:
                break
            found = address
            if not self.trusts(found):
                break
        return found, at


def _secure(scheme: str, direct: Client) -> bool:
    """Whether a client came over TLS, by what a proxy says. Some say `wss` of a WebSocket."""
    return scheme.lower() in ("https", "wss") if scheme else direct.secure


def normal(text: str) -> str | None:
    """An address as it is compared, without a port; None if it is none."""
    text = text.strip().strip('"')
    match = _WITH_PORT(text)
    if match is not None:
        text = match[1] or match[2]
    try:
        found = ip_address(text)
    except ValueError:
        return None
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return str(found)


def _prefix(text: str) -> str:
    """What proxies took off the front of the path, the outermost first. Raises `CallerError` for what is not
    such a path: a link must not lead to another server."""
    found = "".join(part.strip().rstrip("/") for part in text.split(","))
    if found and (not _PATH(found) or any(part in (".", "..") for part in found.split("/"))):
        raise CallerError("the header X-Forwarded-Prefix should be a path such as /presque")
    return found


def neighbourhood(address: str) -> str:
    """What counts as one address: that of IPv4, or the /64 that the owner of one of IPv6 has at least."""
    if ":" not in address:
        return address
    return str(IPv6Network((address.partition("%")[0], 64), strict=False))


def _hops(text: str) -> list[dict[str, str]]:
    """The parts of a `Forwarded` header. Raises `CallerError` for one that cannot be read."""
    hops: list[dict[str, str]] = [{}]
    at = 0
    while at < len(text):
        match = _PAIR(text, at)
        if match is None:
            raise CallerError("the header Forwarded of the request cannot be read")
        quoted = match[2]
        value = match[3] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        hops[-1].setdefault(match[1].lower(), value)
        at = match.end()
        if match[4] == ",":
            hops.append({})
    return hops
