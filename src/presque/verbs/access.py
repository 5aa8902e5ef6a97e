"""Verbs on access: tokens, sessions, namespaces, the audit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from presque.fields import Field, Kind, duration, group, many, of, text, whole, word
from presque.verbs.bounds import DAY, NETWORK_MOST, RATE_MOST, RULE_MOST, RULES_MOST, SOURCES_MOST
from presque.verbs.verb import Verb
from presque.verbs.vocabulary import ACCESS_TOKEN, CURSOR, ID, LIMIT, NAME, NAMESPACE, QUEUE, QUOTAS


def rows() -> Iterator[Verb]:
    rule = text("rule", "What is allowed or denied: `class:pattern`, such as `push:mail*`.", RULE_MOST)
    network = text("network", "A network or an address, such as `10.0.0.0/8`.", NETWORK_MOST)
    rate = group(
        "rate",
        "How many requests it may make in a while.",
        whole("count", "How many requests.", 1, RATE_MOST, required=True),
        duration("seconds", "In how long.", 0.001, DAY, default=1),
    )
    yield Verb(
        name="new_token",
        means="Make an access token. Its text is shown this once.",
        scope="admin",
        over="all",
        route="POST /tokens",
        fields=of(
            dataclasses.replace(NAME, means="The access token's name."),
            many("allow", "What it may do.", rule, RULES_MOST, required=True),
            many("deny", "What it may not do, whatever it may do otherwise.", rule, RULES_MOST),
            Field(name="expires", kind=Kind.MOMENT, means="When it stops being valid."),
            many("sources", "From which networks it may be used.", network, SOURCES_MOST),
            rate,
            dataclasses.replace(
                NAMESPACE, means="In which namespace it is valid, instead of the caller's.", required=False
            ),
        ),
        body="fields",
        status=201,
        answers="new_token",
        problem=True,
        refuses=(507,),
        command=False,
    )
    yield Verb(
        name="tokens",
        means="The access tokens, without their secrets.",
        scope="admin",
        over="all",
        route="GET /tokens",
        fields=of(LIMIT, CURSOR),
        answers="tokens",
        problem=True,
        reads=True,
        command=False,
    )
    yield Verb(
        name="revoke_token",
        means="Make an access token invalid, and everything that was made from it.",
        scope="admin",
        over="all",
        route="DELETE /tokens/{token_id}",
        fields=of(text("token_id", "The token's id.", 32, required=True)),
        status=204,
        problem=True,
        refuses=(404,),
        command=False,
    )
    yield Verb(
        name="audit",
        means="What was changed and what was refused, newest first.",
        scope="admin",
        over="all",
        route="GET /audit",
        fields=of(LIMIT, CURSOR),
        answers="audit",
        problem=True,
        reads=True,
        command=False,
    )
    yield Verb(
        name="new_namespace",
        means="Make a namespace: a separate set of queues, for one tenant.",
        scope="admin",
        over="all",
        route="POST /namespaces",
        fields=of(NAMESPACE, QUOTAS),
        body="fields",
        status=201,
        answers="namespace",
        problem=True,
        refuses=(404, 409, 507),
        command=False,
    )
    yield Verb(
        name="namespaces",
        means="The namespaces that the caller may see, and their quotas.",
        scope="read",
        over="all",
        route="GET /namespaces",
        fields=of(LIMIT, CURSOR),
        answers="namespaces",
        problem=True,
        reads=True,
        command=False,
    )
    yield Verb(
        name="namespace",
        means="One namespace: its quotas, and what there is in it.",
        scope="read",
        over="all",
        route="GET /namespaces/{namespace}",
        fields=of(NAMESPACE),
        answers="namespace",
        problem=True,
        reads=True,
        refuses=(404,),
        command=False,
    )
    yield Verb(
        name="change_namespace",
        means="Change quotas of a namespace, at once and on every server.",
        scope="admin",
        over="all",
        route="PATCH /namespaces/{namespace}",
        fields=of(NAMESPACE, dataclasses.replace(QUOTAS, required=True)),
        body="fields",
        answers="namespace",
        problem=True,
        refuses=(404, 507),
        command=False,
    )
    yield Verb(
        name="delete_namespace",
        means="Delete a namespace with all that is in it, and its tokens.",
        scope="admin",
        over="all",
        route="DELETE /namespaces/{namespace}",
        fields=of(NAMESPACE),
        status=202,
        answers="namespace",
        problem=True,
        refuses=(404, 507),
        command=False,
    )
    yield Verb(
        name="link",
        means="Make a URL with which anyone can read or cancel one job, until a moment.",
        scope="read",
        route="POST /j/{queue}/{id}/link",
        fields=of(
            QUEUE,
            ID,
            word("allow", "What the link allows.", "read", "cancel", required=True),
            Field(
                name="expires", kind=Kind.MOMENT, means="Until when the link works; by default, for a day."
            ),
        ),
        body="fields",
        answers="link",
        problem=True,
        refuses=(404,),
        command=False,
    )
    yield Verb(
        name="login",
        means="Begin a session: get a cookie for an access token, for browsers.",
        scope="any",
        public=True,
        route="POST /login",
        fields=of(
            ACCESS_TOKEN,
            dataclasses.replace(NAMESPACE, means="Into which namespace to look.", required=False),
        ),
        body="raw",
        answers="session",
        problem=True,
        command=False,
    )
    yield Verb(
        name="whoami",
        means="Who the caller is, and what the caller may do.",
        scope="any",
        route="GET /login",
        answers="asker",
        problem=True,
        reads=True,
        command=False,
    )
    yield Verb(
        name="logout",
        means="End a session: its cookie is not valid any more, and the browser forgets it.",
        scope="any",
        public=True,
        route="POST /logout",
        status=204,
        problem=True,
        command=False,
    )
