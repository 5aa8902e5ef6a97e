"""What comes back of tokens, sessions, namespaces and the audit."""

from __future__ import annotations

from typing import Any

from presque.shapes.schema import FLAG, MOMENT, NUMBER, TEXT, WHOLE, Schema, array, maybe, members

_TOKEN = {
    "id": TEXT,
    "name": TEXT,
    "allow": array(TEXT),
    "deny": array(TEXT),
    "expires": maybe(MOMENT),
    "sources": array(TEXT),
    "rate": maybe(members(count=WHOLE, seconds=NUMBER)),
    "created_at": MOMENT,
    "made_by": maybe(TEXT),
    "namespace": maybe(TEXT),
}

_NAMESPACE = {
    "namespace": TEXT,
    "quotas": members(
        queues=maybe(WHOLE),
        jobs=maybe(WHOLE),
        bytes=maybe(WHOLE),
        connections=maybe(WHOLE),
        requests=maybe(WHOLE),
    ),
    "created_at": MOMENT,
    "made_by": maybe(TEXT),
    "deleting": FLAG,
}

_A_TOKEN: dict[str, Any] = {
    "id": "k3vq7xw2np",
    "name": "mailer",
    "allow": ["push:mail*", "lease:mail*"],
    "deny": [],
    "expires": None,
    "sources": [],
    "rate": None,
    "created_at": "2031-05-07T09:30:00.000Z",
    "made_by": None,
    "namespace": None,
}

_A_NAMESPACE: dict[str, Any] = {
    "namespace": "acme",
    "quotas": {"queues": 100, "jobs": 100_000, "bytes": None, "connections": 50, "requests": None},
    "created_at": "2031-05-07T09:30:00.000Z",
    "made_by": "k3vq7xw2np",
    "deleting": False,
}

SHAPES: dict[str, Schema] = {
    "new_token": members(more=True, token=TEXT, **_TOKEN),
    "tokens": members(tokens=array(members(more=True, **_TOKEN)), cursor=maybe(TEXT)),
    "namespace": members(more=True, **_NAMESPACE),
    "namespaces": members(namespaces=array(members(more=True, **_NAMESPACE)), cursor=maybe(TEXT)),
    "audit": members(audit=array(members(more=True, at=MOMENT, kind=TEXT)), cursor=maybe(TEXT)),
    "link": members(url=TEXT, method=TEXT, allow=TEXT, expires=MOMENT),
    "session": members(name=TEXT, namespace=maybe(TEXT), expires=MOMENT, allow=array(TEXT), deny=array(TEXT)),
    "asker": members(
        tokens={"type": "boolean"},
        name=maybe(TEXT),
        namespace=maybe(TEXT),
        expires=maybe(MOMENT),
        rules=array(members(allow=maybe(array(TEXT)), deny=array(TEXT))),
    ),
}

EXAMPLES: dict[str, Any] = {
    "new_token": {"token": "prq_k3vq7xw2np_" + "x" * 43, **_A_TOKEN},
    "tokens": {"tokens": [_A_TOKEN], "cursor": None},
    "namespace": {**_A_NAMESPACE, "usage": {"queues": 3, "jobs": 1200, "bytes": 84000, "connections": 4}},
    "namespaces": {"namespaces": [_A_NAMESPACE], "cursor": None},
    "audit": {
        "audit": [
            {
                "at": "2031-05-07T09:30:00.000Z",
                "kind": "act",
                "outcome": "done",
                "verb": "purge",
                "about": "mail",
                "token": "k3vq7xw2np",
                "name": "mailer",
                "from": "192.0.2.7",
            }
        ],
        "cursor": None,
    },
    "link": {
        "url": "/j/mail/42?link=prq_…",
        "method": "GET",
        "allow": "read",
        "expires": "2031-05-08T09:30:00.000Z",
    },
    "session": {
        "name": "ana",
        "namespace": None,
        "expires": "2031-05-07T21:30:00.000Z",
        "allow": ["read:*"],
        "deny": [],
    },
    "asker": {
        "tokens": True,
        "name": "ana",
        "namespace": None,
        "expires": "2031-05-07T21:30:00.000Z",
        "rules": [{"allow": ["read:*"], "deny": []}, {"allow": None, "deny": ["fetch:*", "lease:*"]}],
    },
}
