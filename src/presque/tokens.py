"""Access tokens as texts: how one is made and proved, what it allows, and how its holder makes a narrower
one.

A token is `prq_<id>_<secret>`. The store keeps the SHA-256 of the secret and never the secret. The holder of
a token makes a narrower one without asking a server, in the manner of macaroons:

    key 0     = SHA-256(secret)
    key n + 1 = HMAC-SHA256(key n, caveat n)          a caveat is a text such as `allow=push:mail*`
    prq_<id>.<caveats, base64url>.<last key, base64url>

A server knows key 0, so it can compute the last key and compare. A caveat can be added by anybody who holds
the token, and taken away by nobody, since a key does not tell the one before it. Every caveat must hold, so
each only narrows. One that a server does not understand makes the token worthless: it may have been meant to
narrow.

No I/O and no clock; the client and the server share this file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import get_args

from presque import names
from presque.errors import InvalidName, shown
from presque.globs import Patterns
from presque.verbs.bounds import RULES_MOST, SOURCES_MOST, TOKEN_MOST
from presque.verbs.verb import Scope

CLASSES: tuple[str, ...] = tuple(word for word in get_args(Scope) if word != "any")
"""What a rule may allow: `push`, `fetch`, `lease`, `read`, `control`, `admin`."""

CAVEATS_MOST = 32
EXPIRES_MOST = 10**12  # epoch seconds

_ID_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"
_plain = re.compile(r"prq_([a-z0-9]{4,32})_([A-Za-z0-9_-]{43})\Z").match
_narrowed = re.compile(r"prq_([a-z0-9]{4,32})\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{43})\Z").match
_begun = re.compile(r"\s*prq_([a-z0-9]{4,32})(?:[^a-z0-9]|\Z)").match
_job = re.compile(r"(read|cancel) (\S+) (\S+) ([0-9]{1,15})\Z").match
_namespace = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z").match
_session = re.compile(r"[A-Za-z0-9_-]{16}\Z").match
_seconds = re.compile(r"[0-9]{1,12}\Z").match

Network = IPv4Network | IPv6Network


class BadToken(ValueError):
    """A text is not a token, or a rule is not one. `str(error)` says why; it never quotes a token."""


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """A token, taken apart. `proof` is what its holder shows: the hash of the secret, or the last key."""

    id: str
    caveats: tuple[str, ...]
    proof: bytes

    def proves(self, key: bytes) -> bool:
        """Whether it was made from the secret whose SHA-256 is `key`. Takes as long if not."""
        return hmac.compare_digest(_last_key(key, self.caveats), self.proof)

    def with_caveats(self, caveats: Sequence[str]) -> str:
        """The text of a token that is bound by these caveats as well. Raises `BadToken`."""
        everything = (*self.caveats, *caveats)
        if not caveats:
            raise BadToken("give what the narrower token should allow or deny, or when it ends")
        if len(everything) > CAVEATS_MOST:
            raise BadToken(f"a token can be narrowed {CAVEATS_MOST} times at most")
        for caveat in caveats:
            Layer.of_caveat(caveat)
        packed = _base64("\n".join(everything).encode())
        text = f"prq_{self.id}.{packed}.{_base64(_last_key(self.proof, caveats))}"
        if len(text) > TOKEN_MOST:
            raise BadToken(
                f"a token has at most {TOKEN_MOST} characters, and this one would have {len(text)}"
            )
        return text


def make() -> tuple[str, str, bytes]:
    """A new token: its id, its text, and the SHA-256 of its secret, which is all that the store keeps."""
    id = "".join(secrets.choice(_ID_LETTERS) for _ in range(10))
    secret = _base64(secrets.token_bytes(32))
    return id, f"prq_{id}_{secret}", hashlib.sha256(secret.encode()).digest()


def read(text: str) -> Token:
    """Take a token apart. Raises `BadToken` for what is none."""
    if len(text) <= TOKEN_MOST:
        if found := _plain(text):
            return Token(found[1], (), hashlib.sha256(found[2].encode()).digest())
        if found := _narrowed(text):
            try:
                caveats = tuple(_bytes(found[2]).decode().split("\n"))
                proof = _bytes(found[3])
            except (binascii.Error, UnicodeDecodeError):
                pass
            else:
                if len(caveats) <= CAVEATS_MOST:
                    return Token(found[1], caveats, proof)
    raise BadToken("this is not a token of presque: those begin with `prq_`")


def id_of(text: str) -> str:
    """The id in a token, or in what is left of one: the rest stays here. What begins otherwise is an id."""
    found = _begun(text)
    return found[1] if found else text


def narrow(
    token: str,
    *,
    allow: Iterable[str] = (),
    deny: Iterable[str] = (),
    expires: float | None = None,
    sources: Iterable[str] = (),
    namespace: str | None = None,
) -> str:
    """A token that may do less than `token`, made without asking a server.

    It may do what `token` may and one of the rules `allow` allows too, and none of the rules `deny` denies;
    until `expires`, in epoch seconds; from the networks `sources`. What is not given is not narrowed. A rule
    is `class:pattern`, such as `push:mail*`. The narrower token ends with the one it was made of.

    With `namespace` it is good in that namespace alone; `token` is of that namespace, or allows `admin:*` in
    the server's own.

    Raises `BadToken`, a `ValueError`.
    """
    caveats = [] if namespace is None else [f"namespace={namespace}"]
    for name, values in (("allow", allow), ("deny", deny), ("source", sources)):
        if texts := [one.strip() for one in values]:
            caveats.append(f"{name}={','.join(texts)}")
    if expires is not None:
        if not 0 <= expires < EXPIRES_MOST:  # neither is NaN
            raise BadToken(f"`expires` should be seconds since 1970, not {expires}")
        caveats.append(f"expires={int(expires)}")
    return read(token).with_caveats(caveats)


def _last_key(key: bytes, caveats: Iterable[str]) -> bytes:
    for caveat in caveats:
        key = hmac.digest(key, caveat.encode(), "sha256")
    return key


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if _base64(data) != text:  # spare bits: one token has one spelling
        raise binascii.Error
    return data


# --- what a token allows


def rule(text: str) -> str:
    """Return a rule if it is one, `class:pattern`. Raises `BadToken` with what is wrong with it."""
    kind, colon, pattern = text.partition(":")
    if kind not in (*CLASSES, "*") or not colon:
        raise BadToken(
            f"`{shown(text)}` is not a rule: use `class:pattern`, such as `push:mail*`, with one of the "
            f"classes {', '.join(CLASSES)} or * for all of them"
        )
    if not names.is_pattern(pattern):
        raise BadToken(
            f"`{shown(text)}` is not a rule: after the colon goes a queue or a pattern such as `mail*`"
        )
    return text


def network(text: str) -> Network:
    """Return a network, or an address as one; as one of IPv4 if it is that within IPv6 (`::ffff:192.0.2.7`),
    since a client is compared by that. Raises `BadToken`."""
    try:
        found = ip_network(text, strict=False)
        if isinstance(found, IPv6Network) and (mapped := found.network_address.ipv4_mapped) is not None:
            return IPv4Network((mapped, found.prefixlen - 96))
        return found
    except ValueError:
        raise BadToken(
            f"`{shown(text)}` is not a network: use 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32"
        ) from None


class Rules:
    """Some rules, ready to be compared with queues. Equal if the rules are."""

    __slots__ = ("_by_class", "texts")

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = tuple(texts)
        if len(self.texts) > RULES_MOST:
            raise BadToken(f"there can be {RULES_MOST} rules, not {len(self.texts)}")
        found: dict[str, list[str]] = {}
        for text in self.texts:
            kind, _, pattern = rule(text).partition(":")
            for one in CLASSES if kind == "*" else (kind,):
                found.setdefault(one, []).append(pattern)
        made = {patterns: Patterns(patterns) for patterns in {tuple(some) for some in found.values()}}
        self._by_class = {kind: made[tuple(patterns)] for kind, patterns in found.items()}

    def cover(self, scope: str, queue: str) -> bool:
        """Whether a rule of this class matches the queue."""
        found = self._by_class.get(scope)
        return found is not None and found.match(queue)

    def cover_all(self, scope: str) -> bool:
        """Whether a rule of this class matches every queue."""
        found = self._by_class.get(scope)
        return found is not None and found.all

    def cover_some(self, scope: str) -> bool:
        """Whether there is a rule of this class."""
        return scope in self._by_class

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rules) and self.texts == other.texts

    def __hash__(self) -> int:
        return hash(self.texts)


NO_RULES = Rules(())


@dataclass(frozen=True, slots=True)
class Layer:
    """One set of conditions, of a record or of a caveat. A token allows what all its layers allow."""

    allow: Rules | None = None
    """None: whatever the other layers allow."""
    deny: Rules = NO_RULES
    expires: int | None = None
    """Epoch milliseconds."""
    sources: tuple[Network, ...] | None = None
    job: tuple[str, str, str, int] | None = None
    """`read` or `cancel`, a queue, an id, and when the job was pushed (ms): good for that act on that job
    alone."""
    session: str | None = None
    """The session that it is good in, as a cookie alone."""
    namespace: str | None = None
    """The namespace in which it is good, alone."""

    @classmethod
    def of_caveat(cls, caveat: str) -> Layer:
        """Read a caveat. Raises `BadToken` for one that is not understood."""
        kind, _, said = caveat.partition("=")
        if kind == "allow":
            return cls(allow=Rules(said.split(",")))
        if kind == "deny":
            return cls(deny=Rules(said.split(",")))
        if kind == "expires" and _seconds(said):
            return cls(expires=int(said) * 1000)
        if kind == "source":
            return cls(sources=networks(said.split(",")))
        if kind == "job" and (found := _job(said)):
            return cls(job=_job_of(found[1], found[2], found[3], int(found[4])))
        if kind == "namespace" and _namespace(said):
            return cls(namespace=said)
        if kind == "session" and _session(said):
            return cls(session=said)
        raise BadToken("the token is bound by a condition that is not understood here")

    def allows(self, scope: str, queue: str) -> bool:
        """Whether it lets this be done to a queue."""
        if self.allow is not None and not self.allow.cover(scope, queue):
            return False
        return not self.deny.cover(scope, queue)

    def allows_all(self, scope: str) -> bool:
        """Whether it lets this be done to every queue."""
        if self.allow is not None and not self.allow.cover_all(scope):
            return False
        return not self.deny.cover_some(scope)

    def allows_some(self, scope: str) -> bool:
        """Whether it may let this be done to some queue."""
        if self.allow is not None and not self.allow.cover_some(scope):
            return False
        return not self.deny.cover_all(scope)

    def takes_from(self, address: str) -> bool:
        """Whether it is good for a client with this address."""
        if self.sources is None:
            return True
        try:
            found: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        return any(found in one for one in self.sources if one.version == found.version)


@dataclass(frozen=True, slots=True)
class Outside:
    """The queues to which layers do not let something be done. Stands in a queue list beside what that
    excludes."""

    scope: str
    layers: tuple[Layer, ...]

    def excludes(self, queue: str) -> bool:
        """Whether the queue is one of them."""
        return not all(layer.allows(self.scope, queue) for layer in self.layers)

    @property
    def weight(self) -> int:
        """How many patterns that compares it with."""
        rules = (rules for layer in self.layers for rules in (layer.allow, layer.deny) if rules is not None)
        return sum(len(one.texts) for one in rules)


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """The networks that these texts name. Raises `BadToken`."""
    found = tuple(network(text) for text in texts)
    if len(found) > SOURCES_MOST:
        raise BadToken(f"a token can have {SOURCES_MOST} networks, not {len(found)}")
    return found


def _job_of(act: str, queue: str, id: str, pushed_at: int) -> tuple[str, str, str, int]:
    try:
        return act, names.queue(queue), names.job(id), pushed_at
    except InvalidName as error:
        raise BadToken(str(error)) from None
