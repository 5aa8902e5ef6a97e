"""Verbs on access tokens: make, list, revoke, the audit, links to one job, sessions.

Sessions and links are tokens that the server narrows, just as a holder would. So they end with the token that
they were made of, and there is no other key that could be lost.
"""

from __future__ import annotations

import secrets
from typing import Any

from presque.commands.call import Call, Reply
from presque.commands.times import moment
from presque.commands.who import Guard, Who, not_allowed
from presque.engine.access import NewToken, Record
from presque.errors import CallerError, NotFound, NotPermitted, Refused, TokenMissing, shown, wrong_cursor
from presque.tokens import NO_RULES, BadToken, Token
from presque.verbs.bounds import PAGE

SESSION_MS = 12 * 3600 * 1000
LINK_MS = 24 * 3600 * 1000
RULES_BYTES = 512 * 1024  # of the rules on a page of tokens
NOT_BY_SESSION = "deny=fetch:*,lease:*"
"""What takes jobs takes no cookie: a browser sends one by itself."""


async def run_new_token(call: Call) -> Reply:
    """Make a token. This answer is the only one that has its text."""
    if call.who.narrowed:
        raise NotPermitted("a narrowed token, a session or a link cannot make tokens: use the original token")
    expires = call.get("expires")
    if expires is not None and expires <= call.engine.access.now():
        raise CallerError("`expires` should be a moment in the future")
    rate = call.get("rate")
    maker = call.who.record
    named = call.get("namespace")
    inside = call.who if named is None else call.service.guard.inside(call.who, named)
    new = NewToken(
        name=call.name,
        allow=call.fields["allow"],
        # A caller that may not touch a queue cannot make a token that may.
        deny=tuple(dict.fromkeys((*(maker.layer.deny.texts if maker else ()), *call.get("deny", ())))),
        expires=expires,
        sources=call.get("sources", ()),
        namespace=None if inside.namespace is None else inside.namespace.name,
        rate=(rate["count"], rate.get("seconds", 1000)) if rate else None,
        made_by=call.who.id or None,
    )
    text, record = await call.service.guard.access.make(new)
    return Reply.of({"token": text, **described(record)}, headers={"Location": f"/tokens/{record.id}"})


async def run_tokens(call: Call) -> Reply:
    """The tokens by their ids, a page of them, without their secrets. Where they have many rules a page is
    short."""
    after, limit = call.get("cursor", ""), call.get("limit", PAGE)
    records = call.service.guard.access.records
    ids = sorted(id for id, one in records.items() if id > after and _shows(call, one))
    page: list[str] = []
    room = RULES_BYTES
    for id in ids[:limit]:
        rules = (*(records[id].layer.allow or NO_RULES).texts, *records[id].layer.deny.texts)
        room -= sum(map(len, rules))
        if page and room < 0:
            break
        page.append(id)
    cursor = page[-1] if len(ids) > len(page) else None
    return Reply.of({"tokens": [described(records[id]) for id in page], "cursor": cursor})


async def run_revoke_token(call: Call) -> Reply:
    """From now on a token is not valid, nor is anything that was made of it."""
    id = call.fields["token_id"]
    access = call.service.guard.access
    known = access.records.get(id)
    if (
        (known is None and call.who.namespace)
        or (known and not _shows(call, known))
        or not await access.remove(id)
    ):
        raise NotFound(f"there is no access token `{shown(id)}`")
    return Reply.of({"id": id, "revoked": True})


def _shows(call: Call, record: Record) -> bool:
    """Whether the caller may see a token: a caller in a namespace sees the tokens of this namespace."""
    return call.who.namespace is None or record.namespace == call.who.namespace.name


async def run_audit(call: Call) -> Reply:
    """What was done and refused, newest first."""
    before = call.get("cursor")
    if before is not None and not (before.isascii() and before.isdecimal() and len(before) <= 15):
        raise wrong_cursor()
    limit = call.get("limit", PAGE)
    notes = await call.engine.notes.page(None if before is None else int(before), limit)
    told = [{"at": moment(note.at), **note.what} for note in notes]
    more = len(notes) == limit and notes[-1].number > 1
    return Reply.of({"audit": told, "cursor": str(notes[-1].number) if more else None})


async def run_link(call: Call) -> Reply:
    """A URL that is good for one act on one job, until a moment."""
    act, who = call.fields["allow"], call.who
    if act == "cancel" and not who.allows("control", call.queue):
        raise not_allowed("control", call.queue)
    if who.sessions:
        raise NotPermitted("the cookie of a session cannot make links: send the token itself")
    if who.token is None:
        raise CallerError("a link is made from the access token of the request, and this request has none")
    now = call.engine.access.now()
    expires = call.get("expires", int(now + LINK_MS))
    if expires <= now:
        raise CallerError("`expires` should be a moment in the future")
    ends = expires if who.ends_at is None else min(expires, who.ends_at)
    job = await call.engine.jobs.show(call.queue, call.job)
    bound = [f"job={act} {call.queue} {call.job} {job.pushed_at}", f"expires={ends // 1000}"]
    text = _bound(who.token, *_in_namespace(who), *bound)
    url = f"{call.prefix}/j/{call.queue}/{call.job}?link={text}"
    method = "GET" if act == "read" else "DELETE"
    return Reply.of({"url": url, "method": method, "allow": act, "expires": moment(ends // 1000 * 1000)})


async def run_whoami(call: Call) -> Reply:
    """Who the caller is, and the rules of its token: all of them must allow what it does."""
    who = call.who
    rules = [
        {"allow": None if layer.allow is None else list(layer.allow.texts), "deny": list(layer.deny.texts)}
        for layer in who.layers
        if layer.allow is not None or layer.deny.texts
    ]
    return Reply.of(
        {
            "tokens": call.service.guard.required,
            "name": who.name or None,
            "namespace": None if who.namespace is None else who.namespace.name,
            "expires": None if who.ends_at is None else moment(who.ends_at),
            "rules": rules,
        }
    )


def session(guard: Guard, text: str, address: str, namespace: str | None) -> tuple[str, Who, int]:
    """The value of a cookie for the holder of a token, who it is, and for how many seconds it is good; in a
    namespace, if one is named. Raises `Refused`."""
    who = guard.who(text, address)
    if namespace is not None:
        who = guard.inside(who, namespace)
    if who.token is None:
        raise TokenMissing
    now = int(guard.access.now())
    ends = now + SESSION_MS
    if who.ends_at is not None:
        ends = min(ends, who.ends_at)
    bound = f"session={secrets.token_urlsafe(12)}", NOT_BY_SESSION, f"expires={ends // 1000}"
    value = _bound(who.token, *_in_namespace(who), *bound)
    return value, guard.who(value, address, "cookie"), max(0, (ends - now) // 1000)


async def end_session(guard: Guard, cookie: str, address: str) -> None:
    """End the session that this is the cookie of: no copy of it is good on any server from now on. What is
    the cookie of none is left alone."""
    try:
        who = guard.who(cookie, address, "cookie")
    except Refused:
        return
    for session in who.sessions:
        await guard.access.end_session(session, int(who.ends_at or guard.access.now() + SESSION_MS))


def _in_namespace(who: Who) -> list[str]:
    """What binds a token to the namespace in which its holder asks, unless it is of that namespace."""
    if who.namespace is None or (who.record and who.record.namespace):
        return []
    return [f"namespace={who.namespace.name}"]


def _bound(token: Token, *caveats: str) -> str:
    try:
        return token.with_caveats(caveats)
    except BadToken as error:
        raise CallerError(str(error)) from None


def described(record: Record) -> dict[str, Any]:
    """What is known of a token, as the answers show it: all but its secret."""
    layer, rate = record.layer, record.rate
    return {
        "id": record.id,
        "name": record.name,
        "namespace": record.namespace,
        "allow": list(layer.allow.texts) if layer.allow is not None else [],
        "deny": list(layer.deny.texts),
        "expires": None if layer.expires is None else moment(layer.expires),
        "sources": [str(one) for one in layer.sources or ()],
        "rate": None if rate is None else {"count": rate[0], "seconds": rate[1] / 1000},
        "created_at": moment(record.created_at),
        "made_by": record.made_by,
    }
