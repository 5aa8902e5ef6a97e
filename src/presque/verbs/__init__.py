"""Everything presque can be asked: a row for each verb, in the file of its subject.

A row says what the verb is called, which HTTP route it has, which fields it takes, what a caller must be
allowed to do, whether it waits and whether it only reads. The rows give the routes and their errors, the
commands of `POST /queue` and of WebSockets, the scopes of tokens, the OpenAPI document and the counters; the
clients, the command line and the tables of docs/protocol.md are compared with them by tests. What a verb does
is a function in commands/ (carrying.py lists them).

To add a verb: a row in the file of its subject, a function in commands/, a paragraph in docs/protocol.md, a
method in the clients.
"""

from __future__ import annotations

import dataclasses

from presque.fields import of
from presque.verbs import access, jobs, leases, many_jobs, queues, restmq, server, workers
from presque.verbs.verb import Verb
from presque.verbs.vocabulary import ACCESS_TOKEN, COUNT, LEASE_SECONDS, QUEUES

VERBS: dict[str, Verb] = {
    verb.name: verb
    for rows in (
        jobs.push_and_fetch,
        leases.rows,
        jobs.single_jobs,
        many_jobs.rows,
        queues.policies_and_recurring_jobs,
        queues.queues,
        workers.rows,
        server.many_in_one,
        server.health,
        server.clock,
        access.rows,
        restmq.rows,
    )
    for verb in rows()
}
"""Every verb by its name."""

COMMANDS: dict[str, Verb] = {name: verb for name, verb in VERBS.items() if verb.command}
"""Those that are commands of `POST /queue`."""

CONSUME = Verb(
    name="lease",
    means="Hold up to `count` leased jobs at any time, as they arrive; 0 ends this.",
    scope="lease",
    fields=of(QUEUES, dataclasses.replace(COUNT, least=0), LEASE_SECONDS),
)
"""What `lease` means on a connection that stays open: it grants credits."""

HELLO = Verb(
    name="hello",
    means="Log in with a token, where the handshake could not carry one.",
    scope="any",
    public=True,
    fields=of(ACCESS_TOKEN),
)

LIVE_COMMANDS: dict[str, Verb] = {**COMMANDS, "lease": CONSUME, "hello": HELLO}
"""The commands of a WebSocket."""
