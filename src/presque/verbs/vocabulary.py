"""The fields that several verbs share."""

from __future__ import annotations

import dataclasses

from presque.fields import Field, Kind, duration, flag, group, many, number, text, value, whole, word
from presque.verbs.bounds import (
    ATTEMPT_ID_MOST,
    ATTEMPTS_MOST,
    BATCH_MOST,
    BYTES_MOST,
    COUNT_MOST,
    DELAY_MOST,
    DELIVERIES,
    FIND_MOST,
    KEEP_MOST,
    KEY_MOST,
    LEASE_MOST,
    PAGE,
    PAGE_MOST,
    PRIORITY,
    PRIORITY_MOST,
    QUEUES_PAGE,
    RATE_MOST,
    SCHEDULE_MOST,
    SETTLE_MOST,
    STATES,
    TEXT_MOST,
    TOKEN_MOST,
    TRACESTATE_MOST,
    WAIT_MOST,
    ZONE_MOST,
)

OF_PUSHES = (422, 429, 507)


# --- fields that many verbs have

QUEUE = Field(name="queue", kind=Kind.QUEUE, means="The queue's name.", required=True)
QUEUES = Field(
    name="queues",
    kind=Kind.QUEUES,
    means="A queue list: names and patterns in order of preference, such as `critical,*,!bulk_*`.",
    required=True,
)
ID = Field(name="id", kind=Kind.ID, means="The job's id.", required=True)
NAME = Field(name="name", kind=Kind.NAME, means="The recurring job's name.", required=True)
WORKER = Field(name="worker_id", kind=Kind.WORKER, means="The worker's id.", required=True)
JOB = value("job", "The job: any JSON value.")
WAIT = duration("wait", "How long to wait for a job.", 0, WAIT_MOST, default=0)
WAIT_FOR_END = duration("wait", "How long to wait for the job to be done or dead.", 0, WAIT_MOST, default=0)
COUNT = whole("count", "How many jobs at most.", 1, BATCH_MOST, default=1)
LIMIT = whole("limit", "How many at most.", 1, PAGE_MOST, default=PAGE)
CURSOR = text("cursor", "The `cursor` of the previous page: continue from there.", 512, blank=True)

OF_A_PAGE_OF_QUEUES = (
    dataclasses.replace(QUEUES, means="Only these queues.", required=False, blank=True),
    whole("limit", "How many queues at most.", 1, QUEUES_PAGE, default=QUEUES_PAGE),
    dataclasses.replace(CURSOR, most=128),
    flag("busy", "Only queues that hold jobs which are not dead.", default=False),
)

# --- what may be said about a push

OF_A_BATCH = (
    Field(
        name="delayed",
        kind=Kind.MOMENT,
        means="Not before this moment; one in the past means now.",
        blank=True,
    ),
    duration("delay", "Not before this much time has passed.", 0, DELAY_MOST, instead_of="delayed"),
    whole("priority", "9 comes first.", 1, PRIORITY_MOST, default=PRIORITY),
    duration(
        "ttl", "Drop the job, and count it as expired, if nobody has taken it by then.", 0.001, DELAY_MOST
    ),
    whole(
        "attempts",
        "How many times the job is leased before it is dead, instead of the policy's `max_attempts`.",
        1,
        ATTEMPTS_MOST,
    ),
    duration(
        "keep",
        "How long the job is kept once it is done, instead of the policy's `keep`; in whole seconds.",
        0,
        KEEP_MOST,
    ),
    text("group", "Ready jobs of different groups are handed out in turn.", KEY_MOST),
)
OF_A_PUSH = (
    *OF_A_BATCH,
    text("uniq", "Refuse the job while another job with this key waits in this queue.", KEY_MOST, blank=True),
    word(
        "uniq_until",
        "When the key is free again: when the job is fetched or leased, or when it is finished.",
        "fetch",
        "done",
        default="fetch",
        needs="uniq",
    ),
)
FROM_HEADERS = (
    text(
        "idempotency_key",
        "For a day, repeating the push with this key stores nothing and returns the same answer.",
        KEY_MOST,
        header="Idempotency-Key",
    ),
    text(
        "traceparent",
        "W3C Trace Context: kept, and handed out with the job.",
        KEY_MOST,
        header="traceparent",
    ),
    text(
        "tracestate",
        "What belongs to the traceparent; one of more than 512 characters is left out.",
        TRACESTATE_MOST,
        header="tracestate",
    ),
)

NAMESPACE = text("namespace", "The namespace's name.", 64, required=True)
QUOTAS = group(
    "quotas",
    "How much it may hold; null, or what was never set, is unlimited.",
    whole("queues", "How many queues.", 0, 1_000_000, nullable=True),
    whole("jobs", "How many jobs, of every state.", 0, COUNT_MOST, nullable=True),
    whole("bytes", "How many bytes of jobs.", 0, BYTES_MOST, nullable=True),
    whole("connections", "How many connections at once.", 0, 1_000_000, nullable=True),
    whole("requests", "How many requests in a second.", 1, RATE_MOST, nullable=True),
)

ACCESS_TOKEN = text("token", "The access token.", TOKEN_MOST, required=True)

# --- what jobs must be like: the filter of a search, of an export, of a bulk task

ANY_STATE = "any"
STATE = word("state", "Only jobs in this state.", *STATES, ANY_STATE)
FILTER = (
    text("find", "Only jobs whose body, or one of whose errors, contains this text.", FIND_MOST),
    text("text", "Only jobs whose body contains this text, byte for byte.", FIND_MOST),
    text("error", "Only jobs whose last error contains this text.", FIND_MOST),
    text("like", "Only jobs whose last error is of the same kind as this one.", FIND_MOST),
    duration(
        "older",
        "Only jobs that ended this long ago or longer. Jobs that have not ended count from their push.",
        0,
        DELAY_MOST,
    ),
    duration(
        "newer",
        "Only jobs that ended less than this long ago. Jobs that have not ended count from their push.",
        0,
        DELAY_MOST,
    ),
    text("group", "Only jobs of this group.", KEY_MOST),
    text("worker", "Only jobs that this worker had last.", 256),
    whole("priority", "Only jobs of this priority.", 1, PRIORITY_MOST),
)
OF_AN_EXPORT = (
    Field(name="queue", kind=Kind.QUEUE, means="The queue's name.", required=True),
    value("body", "The job.", required=True),
    word("state", "In which state it was.", *STATES, default="ready"),
    whole("priority", "9 comes first.", 1, PRIORITY_MOST, default=PRIORITY),
    whole("attempt", "How often it was leased.", 0, 65535),
    whole("attempts", "How many times it is leased before it is dead.", 1, ATTEMPTS_MOST),
    duration("keep", "How long it is kept once it is done.", 0, KEEP_MOST),
    text("group", "Its group.", KEY_MOST),
    text("uniq", "Its unique key.", KEY_MOST),
    word("uniq_until", "When the key is free again.", "fetch", "done"),
    text("traceparent", "W3C Trace Context.", KEY_MOST),
    text("tracestate", "What belongs to the traceparent.", TRACESTATE_MOST),
    text("cron", "The recurring job that pushed it.", KEY_MOST),
    *(
        Field(name=name, kind=Kind.MOMENT, means=means)
        for name, means in (
            ("pushed_at", "When it was pushed."),
            ("run_at", "When it is due."),
            ("expires_at", "When its `ttl` ends."),
            ("finished_at", "When it was done or died."),
            ("kept_until", "Until when it is kept."),
            ("leased_at", "When it was leased."),
        )
    ),
    text("worker", "Who had it last.", 256),
    value("progress", "How far it had got.", TEXT_MOST),
    value("saved", "What it saved for its next attempt.", TEXT_MOST),
    value("result", "Its result.", TEXT_MOST),
    text("reason", "Why it is dead.", TEXT_MOST),
    many(
        "errors",
        "Its errors.",
        group(
            "error",
            "One of them.",
            Field(name="at", kind=Kind.MOMENT, means="When.", required=True),
            text("worker", "Who had it.", 256),
            text("error", "What went wrong.", TEXT_MOST, blank=True),
            text("backtrace", "Where.", TEXT_MOST, blank=True),
        ),
        10,
    ),
)
"""What a line of an import may say."""
NOT_IMPORTED = frozenset(("id", "max_attempts", "lease_until", "cancel"))
"""What a line of an export says besides, and an import passes over."""

ONLY_QUEUES = dataclasses.replace(QUEUES, means="Only these queues.", required=False, blank=True)
TASK_ID = text("task_id", "The task's id.", 15, required=True)

# --- what may be said about a lease

TOKEN = text("lease", "The token of the lease.", 128, required=True, header="Presque-Lease", also_query=True)
ERROR = text("error", "What went wrong.", TEXT_MOST, blank=True)
BACKTRACE = text("backtrace", "Where it went wrong.", TEXT_MOST, blank=True)
RETRY_IN = duration(
    "retry_in", "How long until the job is retried, instead of the policy's `backoff`.", 0, DELAY_MOST
)
RETRY = flag("retry", "`false`: the job is dead and is not retried.", default=True)
RESULT = value("result", "The job's result: any JSON value.", TEXT_MOST)
PROGRESS = value("progress", "How far the job has got: any JSON value.", TEXT_MOST)
SAVED = value(
    "saved",
    "What the next attempt at the job gets with its lease: any JSON value; null removes what there is.",
    TEXT_MOST,
)
GIVE_BACK_DELAY = duration("delay", "How long until the job is ready again.", 0, DELAY_MOST, default=0)
EXTEND_SECONDS = duration(
    "seconds",
    "How long the lease lasts from now; by default, as long as it was first given for.",
    1,
    LEASE_MOST,
)
LEASE_SECONDS = duration(
    "seconds", "How long the lease lasts, instead of the policy's `lease`.", 1, LEASE_MOST
)
ATTEMPT_ID = text(
    "attempt_id",
    "A lease repeated with the same value within its first minute returns the same jobs.",
    ATTEMPT_ID_MOST,
    blank=True,
)

OF_A_SETTLE = {
    "ack": ("The job is done: end its lease.", (RESULT, PROGRESS)),
    "fail": (
        "The job failed: end its lease. It is retried, or dead after its last attempt.",
        (ERROR, BACKTRACE, RETRY_IN, RETRY, PROGRESS, SAVED),
    ),
    "release": (
        "Give the job back: end its lease. This does not count as a failure.",
        (GIVE_BACK_DELAY, PROGRESS, SAVED),
    ),
    "extend": ("The job takes longer: extend its lease.", (EXTEND_SECONDS, PROGRESS, SAVED)),
}
_IDS = many("ids", "Several jobs that have the same token.", ID, SETTLE_MOST, instead_of="id")
_ONE_OR_MORE = (QUEUE, dataclasses.replace(ID, required=False), _IDS, TOKEN)
SETTLEMENTS = tuple(
    many(name, means, group(name, "Leases of one token.", *_ONE_OR_MORE, *more), SETTLE_MOST, undecoded=True)
    for name, (means, more) in OF_A_SETTLE.items()
)

# --- the policy of a queue; null restores the default

POLICY = (
    duration(
        "lease",
        "How long a lease lasts, unless the lease itself says.",
        1,
        LEASE_MOST,
        nullable=True,
        default=60,
    ),
    whole(
        "max_attempts",
        "How many times a job is leased before it is dead.",
        1,
        ATTEMPTS_MOST,
        nullable=True,
        default=5,
    ),
    group(
        "backoff",
        "How long a failed job waits: `first`, then `factor` times as long each time, up to `most`; varied "
        "at random by the fraction `jitter`.",
        duration("first", "After the first failure.", 0, DELAY_MOST, default=15),
        number("factor", "By how much each further wait is multiplied.", 1, 100, default=2),
        duration("most", "The longest wait.", 0, DELAY_MOST, default=3600),
        number("jitter", "The fraction of random variation, from 0 to 1.", 0, 1, default=0.1),
        nullable=True,
    ),
    duration("ttl", "The `ttl` of a push that gives none.", 0.001, DELAY_MOST, nullable=True),
    duration(
        "keep",
        "How long finished jobs are kept; in whole seconds.",
        0,
        KEEP_MOST,
        nullable=True,
        default=0,
    ),
    whole(
        "dead_most",
        "How many dead jobs are kept; beyond that the oldest are deleted.",
        0,
        COUNT_MOST,
        nullable=True,
        default=10_000,
    ),
    whole("max_length", "How many jobs may wait, scheduled ones included.", 1, COUNT_MOST, nullable=True),
    word(
        "overflow",
        "What happens to a push beyond `max_length`: it gets 429.",
        "reject",
        nullable=True,
        default="reject",
    ),
    whole("max_leased", "How many jobs may be leased at once.", 1, COUNT_MOST, nullable=True),
    whole("group_leased", "How many jobs of one group may be leased at once.", 1, COUNT_MOST, nullable=True),
    group(
        "rate",
        "At most `count` jobs are handed out in any `seconds`.",
        whole("count", "How many jobs.", 1, COUNT_MOST, required=True),
        duration("seconds", "The length of the period.", 0.001, DELAY_MOST, required=True),
        nullable=True,
    ),
    duration(
        "expires",
        "A queue that has been empty and unused for this long is forgotten.",
        1,
        DELAY_MOST,
        nullable=True,
    ),
    word(
        "delivery",
        "`queue`: each job to one consumer; `broadcast`: to every listener; `roundrobin`: to each in turn.",
        *DELIVERIES,
        nullable=True,
        default="queue",
    ),
)

# --- a recurring job

_of_a_job = {one.name: one for one in OF_A_BATCH}
RECURRING = (
    QUEUE,
    value("body", "The job that is pushed each time.", required=True),
    text("schedule", "Cron fields, `@hourly` and the like, or `@every 5m`.", SCHEDULE_MOST, required=True),
    text("timezone", "An IANA name such as `Europe/Paris`.", ZONE_MOST, default="UTC"),
    word(
        "missed",
        "What to do about the times at which no server was running.",
        "skip",
        "once",
        "all",
        default="once",
    ),
    word(
        "overlap",
        "Whether the job is pushed while the previous one is not finished.",
        "allow",
        "skip",
        default="allow",
    ),
    *(_of_a_job[name] for name in ("priority", "ttl", "attempts", "keep", "group")),
)
