"""The caller and what it may do: one answer for every door.

A token becomes a `Who` once (`Guard.who`), and each request asks it (`Who.may`, called by carrying.py alone).
A token never changes: it is valid until it is revoked or expires, and then everything that is still done in
its name ends. So doors may remember a `Who` with what they know of a request, until the guard tells them to
forget (`Guard.on_change`).
"""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

import msgspec

from presque.engine.access import DUMMY, Access
from presque.engine.access import Record as Record  # for the doors
from presque.engine.namespaces import Namespace, Namespaces
from presque.engine.quotas import name_of
from presque.errors import (
    NoNamespace,
    NotPermitted,
    Refused,
    TokenExpired,
    TokenMissing,
    TokenUnknown,
    TooManyRequests,
    wrong_cursor,
)
from presque.names import QueueList, has_glob
from presque.tokens import BadToken, Layer, Outside, Token
from presque.tokens import read as read_token
from presque.verbs.verb import Over, Scope

REMEMBERED_MOST = 4096
ANSWERS_MOST = 4096
MARK_BYTES = 16
LOOK_MS = 1500  # a look at the clock comes at least so often

OF_LINKS = {"read": "job", "cancel": "delete"}
"""What a link is good for, and the verb that does it."""

Door = Literal["header", "cookie", "link"]
"""Where a token stood."""


class Spending(Protocol):
    """Counts requests."""

    def spend(self) -> None:
        """Count one. Raises `PresqueError` if it is one too many."""


class Both(msgspec.Struct, frozen=True):
    """A token with a rate in a namespace that may have one."""

    namespace: Spending
    token: Spending

    def spend(self) -> None:
        """Count one request of both."""
        self.namespace.spend()
        self.token.spend()


class Who:
    """The caller, and what it may ask for: whatever all `layers` allow. Without layers that is everything."""

    __slots__ = (
        "_answers", "_record", "_seal", "_token", "ends_at", "id", "layers", "meter", "name", "namespace",
    )  # fmt: skip

    def __init__(
        self,
        id: str = "",
        name: str = "",
        layers: Iterable[Layer] = (),
        *,
        record: Record | None = None,
        token: Token | None = None,
        meter: Spending | None = None,
        namespace: Namespace | None = None,
        seal: bytes = b"",
    ) -> None:
        self.id = id
        self.name = name
        self.layers = tuple(layers)
        self.meter = meter
        self.namespace = namespace
        self.ends_at = min((one.expires for one in self.layers if one.expires is not None), default=None)
        self._record = record
        self._token = token
        self._seal = seal
        self._answers: dict[tuple[str, str], bool] = {}

    @property
    def record(self) -> Record | None:
        """What the store has of the token."""
        return self._record

    @property
    def token(self) -> Token | None:
        """The token, None for somebody without one."""
        return self._token

    @property
    def operates(self) -> bool:
        """Whether they may make namespaces and look into each: they are in none, and may do `admin:*`."""
        return self.namespace is None and all(layer.allows_all("admin") for layer in self.layers)

    def inside(self, namespace: Namespace) -> Who:
        """The same asker, in a namespace. Raises `Refused` unless they may look into it."""
        if self.namespace is namespace:
            return self
        if not self.operates:
            raise NoNamespace(namespace.name) if self.namespace else not_allowed("admin", "*")
        meter = namespace if self.meter is None else Both(namespace, self.meter)
        return Who(
            self.id, self.name, self.layers, record=self._record, token=self._token, meter=meter,
            namespace=namespace, seal=self._seal,
        )  # fmt: skip

    @property
    def narrowed(self) -> bool:
        """Whether the token was narrowed by its holder, or is a session or a link."""
        return len(self.layers) > 1

    @property
    def sessions(self) -> tuple[str, ...]:
        """The session whose cookie this is, as the store knows it: one, as a rule, or none."""
        return tuple(f"{self.id}:{layer.session}" for layer in self.layers if layer.session is not None)

    @property
    def bound_to_networks(self) -> bool:
        """Whether the token is good from some networks only."""
        return any(layer.sources is not None for layer in self.layers)

    def allows(self, scope: str, queue: str) -> bool:
        """Whether they may do this to a queue."""
        if not self.layers:
            return True
        known = self._answers.get((scope, queue))
        if known is None:
            if len(self._answers) >= ANSWERS_MOST:
                self._answers.clear()
            known = all(layer.allows(scope, queue) for layer in self.layers)
            self._answers[scope, queue] = known
        return known

    def sees(self, queue: str) -> bool:
        """Whether lists show them this queue."""
        return self.allows("read", queue)

    @property
    def sees_all(self) -> bool:
        """Whether lists show them everything."""
        return all(layer.allows_all("read") for layer in self.layers)

    def sealed(self, cursor: str) -> str:
        """A cursor as they may have it who do not see everything: it may be a name that they may not see.

        It is good for this token alone, on any server. Its holder can neither read it nor change it: what
        seals it is known to the servers alone, and a changed one would show by its answer where it lies now.
        """
        if self.sees_all or self._record is None:
            return cursor
        text = cursor.encode()
        mark = self._mark(text)
        return base64.urlsafe_b64encode(mark + self._mixed(mark, text)).decode().rstrip("=")

    def opened(self, cursor: str) -> str:
        """What was `sealed`. Raises `CallerError` for what was not."""
        if not cursor or self.sees_all or self._record is None:
            return cursor
        try:
            packed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
            mark, mixed = packed[:MARK_BYTES], packed[MARK_BYTES:]
            text = self._mixed(mark, mixed)
            opened = text.decode() if hmac.compare_digest(mark, self._mark(text)) else None
        except ValueError:
            opened = None
        if opened is None:
            raise wrong_cursor()
        return opened

    def _mark(self, text: bytes) -> bytes:
        """What only a server can tell of a text, for this token."""
        return hmac.digest(self._seal, b"mark %b %b" % (self.id.encode(), text), "sha256")[:MARK_BYTES]

    def _mixed(self, mark: bytes, text: bytes) -> bytes:
        """The text mixed with bytes that only a server can tell; mixed again, it is the text."""
        key = hmac.digest(self._seal, b"text %b %b" % (self.id.encode(), mark), "sha256")
        blocks = (hmac.digest(key, b"%d" % at, "sha256") for at in range(0, len(text), 32))
        return bytes(one ^ other for one, other in zip(text, b"".join(blocks), strict=False))

    def may(self, scope: Scope, queues: str | QueueList | None, over: Over = "") -> None:
        """Return if they may do this to these queues; raise the refusal otherwise.

        Every queue that a list names must be allowed, and of those that its patterns stand for `within` keeps
        the allowed ones. `over` says what counts where no queue is named.
        """
        if not self.layers or scope == "any":
            return
        if isinstance(queues, str):
            if not self.allows(scope, queues):
                raise not_allowed(scope, queues)
        elif queues is None:
            self._may_over(scope, over)
        else:
            for item in queues.items:
                if not has_glob(item) and not self.allows(scope, item):
                    raise not_allowed(scope, item)
            if queues.globs and not all(layer.allows_some(scope) for layer in self.layers):
                raise not_allowed(scope, queues.text)

    def _may_over(self, scope: str, over: Over) -> None:
        if over == "all":
            if not all(layer.allows_all(scope) for layer in self.layers):
                raise not_allowed(scope, "*")
        elif not all(layer.allows_some(scope) for layer in self.layers):
            raise not_allowed(scope, "…")

    def within(self, scope: str, queues: QueueList) -> QueueList:
        """The same list, whose patterns stand only for queues to which they may do this."""
        if not queues.globs or all(layer.allows_all(scope) for layer in self.layers):
            return queues
        layers = tuple(Layer(allow=one.allow, deny=one.deny) for one in self.layers)
        return replace(queues, excluded=(*queues.excluded, Outside(scope, layers)))

    def may_by_link(self, verb: str, fields: Mapping[str, Any]) -> None:
        """Raise the refusal if their token is a link to a job, and this is not what it is good for."""
        for layer in self.layers:
            if layer.job is not None:
                act, queue, job, _ = layer.job
                if (verb, fields.get("queue"), fields.get("id")) != (OF_LINKS[act], queue, job):
                    raise NotPermitted(f"this link allows to {act} job {job} of {queue}, and nothing else")

    @property
    def linked_to(self) -> int | None:
        """When the job of their link was pushed: its id may be another's by now. None without one."""
        return next((layer.job[3] for layer in self.layers if layer.job is not None), None)

    def __repr__(self) -> str:
        return f"Who({self.id!r}, {self.name!r})"


ANYBODY = Who()
"""The caller where no tokens are used."""


class Nobody(Who):
    """A client that has not said yet who it is, and may do nothing before."""

    __slots__ = ()

    @property
    def operates(self) -> bool:
        """Never."""
        return False

    def inside(self, namespace: Namespace) -> Who:  # noqa: ARG002  (the signature is that of `Who`)
        """Never."""
        raise TokenMissing

    def may(self, scope: Scope, queues: str | QueueList | None, over: Over = "") -> None:  # noqa: ARG002  (as above)
        """Never."""
        raise TokenMissing

    def allows(self, scope: str, queue: str) -> bool:  # noqa: ARG002  (as above)
        """Never."""
        return False


NOBODY = Nobody()


def not_allowed(scope: str, queue: str) -> NotPermitted:
    """The refusal that names what is missing."""
    if queue == "…":
        return NotPermitted(f"this access token does not allow `{scope}` of any queue")
    return NotPermitted(f"this access token does not allow `{scope}:{queue}`")


class Guard:
    """Knows the tokens of one server. `on_change` are called when some may have become invalid: whatever was
    remembered of a token is to be forgotten, and what goes on in its name to be looked at again with
    `error_of`."""

    def __init__(
        self,
        access: Access,
        namespaces: Namespaces,
        *,
        required: bool = False,
        certificates: Mapping[str, str] | None = None,
    ) -> None:
        self.access = access
        self.namespaces = namespaces
        self._certificates = certificates or {}  # the name in one -> the id of the token that it stands for
        self.on_change: list[Callable[[], None]] = []
        self._required = required
        self._known: OrderedDict[str, Who] = OrderedDict()
        self._soonest: float = float("inf")
        access.on_change.append(self._changed)

    @property
    def required(self) -> bool:
        """Whether a request needs a token."""
        return self._required or self.access.made_once

    def who(self, text: str | None, address: str, door: Door = "header") -> Who:
        """Who shows this token, from this address. Raises `Refused`."""
        if not self.required:
            return ANYBODY
        if text is None:
            raise TokenMissing
        who = self._known.get(text)
        if who is None:
            who = self._learn(text)
        if who.ends_at is not None and who.ends_at <= self.access.now():
            raise _told_of(who, TokenExpired())
        self._check_door(who, address, door)
        return who

    def of_certificate(self, names: Iterable[str], address: str) -> Who | None:
        """The caller that shows a certificate with these names, if one of them stands for a token. Raises
        `Refused`."""
        ids = [self._certificates[name] for name in names if name in self._certificates]
        if not ids or not self.required:
            return None
        record = self.access.records.get(ids[0])
        if record is None:
            raise _told_of_id(ids[0], TokenUnknown())
        who = self._who(record, Token(record.id, (), record.key))
        if who.ends_at is not None and who.ends_at <= self.access.now():
            raise _told_of(who, TokenExpired())
        self._check_door(who, address, "header")
        return who

    def error_of(self, who: Who) -> Refused | None:
        """Why what is done in somebody's name must end; None if it may continue."""
        if who.namespace is not None and who.namespace.gone:
            return _told_of(who, NoNamespace(who.namespace.name) if who.record is None else TokenUnknown())
        if who.record is None:
            return TokenMissing() if self.required else None
        if self.access.records.get(who.id) != who.record or not self.access.ended.isdisjoint(who.sessions):
            return _told_of(who, TokenUnknown())
        if who.ends_at is not None and who.ends_at <= self.access.now():
            return _told_of(who, TokenExpired())
        return None

    def look_at_clock(self) -> None:
        """Once a second: have those forgotten whose time is up, or at the moment at which it will be."""
        left_ms = self._soonest - self.access.now()
        if left_ms <= 0:
            self._changed()
        elif left_ms < LOOK_MS:
            asyncio.get_running_loop().call_later(left_ms / 1000, self.look_at_clock)

    def _learn(self, text: str) -> Who:
        """Find out whose a token is. An unknown id takes as long as a wrong secret, and is answered alike."""
        try:
            token = read_token(text)
        except BadToken:
            raise TokenUnknown from None
        record = self.access.records.get(token.id)
        proved = token.proves(record.key if record is not None else DUMMY)
        if record is None:
            raise TokenUnknown
        if not proved:
            raise _told_of_id(record.id, TokenUnknown())
        who = self._who(record, token)
        if not self.access.ended.isdisjoint(who.sessions):
            raise _told_of(who, TokenUnknown())
        if len(self._known) >= REMEMBERED_MOST:
            self._known.popitem(last=False)
        self._known[text] = who
        return who

    def _who(self, record: Record, token: Token) -> Who:
        """The holder of a token that was proved."""
        try:
            layers = (record.layer, *(Layer.of_caveat(caveat) for caveat in token.caveats))
        except BadToken:
            raise _told_of_id(record.id, TokenUnknown()) from None
        namespace = self._namespace(record, layers)
        meter: Spending | None = namespace
        if record.rate is not None:
            meter = self.access.meters.of(record.id, record.rate, TooManyRequests)
            meter = meter if namespace is None else Both(namespace, meter)
        who = Who(
            record.id, record.name, layers, record=record, token=token, meter=meter, namespace=namespace,
            seal=self.access.seal,
        )  # fmt: skip
        if who.ends_at is not None:
            self._soonest = min(self._soonest, who.ends_at)
        return who

    def _namespace(self, record: Record, layers: Sequence[Layer]) -> Namespace | None:
        """The namespace of a token: that of its record, or one that its holder bound it to, who might do so.
        Raises `Refused`."""
        name = record.namespace
        for number, layer in enumerate(layers):
            if layer.namespace in (None, name):
                continue
            if name is not None or not all(one.allows_all("admin") for one in layers[:number]):
                raise _told_of_id(record.id, TokenUnknown())
            name = layer.namespace
        if name is None:
            return None
        try:
            return self.namespaces.get(name)
        except NoNamespace:
            raise _told_of_id(record.id, TokenUnknown()) from None

    def inside(self, who: Who, name: str) -> Who:
        """The same asker in the namespace of this name. Raises `Refused`."""
        if who is NOBODY:  # who says later who it is cannot have said it in its name
            raise TokenMissing
        if who.namespace is not None and who.namespace.name == name:
            return who
        if not who.operates:  # who may not look into any does not learn which there are
            raise _told_of(who, not_allowed("admin", "*") if who.namespace is None else NoNamespace(name))
        return who.inside(self.namespaces.get(name_of(name)))

    def _check_door(self, who: Who, address: str, door: Door) -> None:
        for layer in who.layers:
            if layer.sources is not None and not layer.takes_from(address):
                raise _told_of(who, NotPermitted(f"this access token is not for clients at {address}"))
            if layer.session is not None and door != "cookie":
                raise _told_of(who, NotPermitted("this is the cookie of a session, and not a token"))
        if door == "cookie" and not who.sessions:
            raise TokenUnknown
        if door == "link" and not any(layer.job is not None for layer in who.layers):
            raise TokenUnknown

    def _changed(self) -> None:
        self._known.clear()
        self._soonest = float("inf")
        for hear in self.on_change:
            hear()


def _told_of(who: Who, error: Refused) -> Refused:
    return _told_of_id(who.id, error)


def _told_of_id(id: str, error: Refused) -> Refused:
    error.who = id
    return error
