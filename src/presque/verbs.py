"""Everything presque can be asked, on one page: a row for each verb.

A row says how the verb is called, by which HTTP route, what it may say, what one must be allowed to do to ask
it, whether it waits, whether it only reads. From the rows come the routes and their errors, the commands of
`POST /queue` and of WebSockets, the scopes of tokens, the OpenAPI document and the counters; the clients, the
command line and the tables of docs/protocol.md are compared with them by tests. What a verb does stands in
commands/, in a function of its own (carrying.py lists them).

To add a verb: a row here, a function in commands/, its paragraph in docs/protocol.md, a method in the client.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from presque.fields import (
    Field,
    Fields,
    Kind,
    duration,
    flag,
    group,
    many,
    number,
    of,
    text,
    value,
    whole,
    word,
)

HOUR, DAY, YEAR = 3600, 24 * 3600, 365 * 24 * 3600

WAIT_MOST = 60
BATCH, BATCH_MOST = 10, 1000
DELAY_MOST = 10 * YEAR
KEEP_MOST = YEAR
ATTEMPTS_MOST = 1000
KEY_MOST = 255
LEASE_MOST = 12 * HOUR
SETTLE_MOST = 1000
TEXT_MOST = 64 * 1024
ATTEMPT_ID_MOST = 128
PAGE, PAGE_MOST = 100, 500
PEEK, PEEK_MOST = 10, 1000
COUNT_MOST = 1_000_000_000
RETRY_MOST = RATE_MOST = 1_000_000
STREAM_MOST = DAY
COMMANDS_MOST = 1000
SCHEDULE_MOST, ZONE_MOST = 500, 100
PRIORITY, PRIORITY_MOST = 5, 9

Scope = Literal["push", "fetch", "lease", "read", "control", "admin", "any"]
"""What a token must allow. `lease` covers settling; `any` is for what holds other verbs, which decide."""

Body = Literal["none", "job", "fields", "raw"]

OF_PUSHES = (422, 429, 507)

STATES = ("scheduled", "ready", "leased", "done", "dead")
DELIVERIES = ("queue", "broadcast", "roundrobin")


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One thing that presque can be asked."""

    name: str
    means: str
    scope: Scope
    route: str | None = None
    """Method and path; None for what is only a command. What stands in braces is a field."""
    fields: Fields = field(default_factory=dict)
    body: Body = "none"
    """What the body of the HTTP request is: nothing, the field `job` as it came, an object of the fields, or
    something that the verb reads itself."""
    status: int = 200
    answers: str = "nothing"
    """The shape of the answer, see shapes.py."""
    refuses: tuple[int, ...] = ()
    """The statuses of errors that it may be answered with, beside those that any request may."""
    worker: Literal["ignored", "counted", "required"] = "ignored"
    """What the header X-presque-workerid is to it."""
    problem: bool = False
    """Whether errors are RFC 9457 problems; on the classic routes they are `{"error": …}`."""
    waits: bool = False
    reads: bool = False
    """Whether it changes nothing: HEAD is allowed, and a client may repeat it."""
    takes: bool = False
    """Whether a GET of it takes jobs, so that a browser must not come here by a link."""
    streams: bool = False
    command: bool = True
    """Whether it is a command of `POST /queue` and of WebSockets too."""
    also: tuple[str, ...] = ()
    """Further routes, as clients of 2010 know them."""
    when: str | None = None
    """A parameter that chooses this verb among those of the same route."""
    without: tuple[str, str] | None = None
    """A field, and the verb that a command means which leaves it out."""

    @property
    def method(self) -> str:
        """The HTTP method; "" for what has no route."""
        return "" if self.route is None else self.route.split(" ")[0]

    @property
    def path(self) -> str:
        """The HTTP path with its fields in braces; "" for what has no route."""
        return "" if self.route is None else self.route.split(" ")[1]

    @cached_property
    def in_path(self) -> tuple[str, ...]:
        """The names of the fields that the path holds, in order."""
        return tuple(part[1:-1] for part in self.path.split("/") if part.startswith("{"))

    @cached_property
    def outside(self) -> Fields:
        """The fields that are not in the path, nor the whole body."""
        inside = {*self.in_path, *(("job",) if self.body == "job" else ())}
        return {name: one for name, one in self.fields.items() if name not in inside}

    @cached_property
    def members(self) -> Fields:
        """The fields as the members of a command, where a queue list is called `queue` too."""
        return {
            one.name: one
            for field in self.fields.values()
            for one in [dataclasses.replace(field, name="queue") if field.name == "queues" else field]
        }

    @cached_property
    def parameters(self) -> Fields:
        """The fields that the query of the URL may hold."""
        structured = (Kind.JSON, Kind.LIST, Kind.OBJECT)
        return {
            name: one
            for name, one in self.outside.items()
            if one.kind not in structured
            and (one.header is None or one.also_query)
            and not (self.body == "raw" and one.required)  # stands in the body
        }

    @cached_property
    def headers(self) -> Fields:
        """The fields that a header may hold, by the header's name in lower case."""
        return {one.header.lower(): one for one in self.outside.values() if one.header is not None}


# --- fields that many verbs have

QUEUE = Field(name="queue", kind=Kind.QUEUE, means="The queue's name.", required=True)
QUEUES = Field(
    name="queues",
    kind=Kind.QUEUES,
    means="A queue list: names and patterns in order of preference, such as `critical,*,!bulk_*`.",
    required=True,
)
ID = Field(name="id", kind=Kind.ID, means="The job's id.", required=True)
NAME = Field(name="name", kind=Kind.NAME, means="recurring job", required=True)
WORKER = Field(name="worker_id", kind=Kind.WORKER, means="The worker's id.", required=True)
JOB = value("job", "The job: any JSON value.")
WAIT = duration("wait", "How long to wait for a job.", 0, WAIT_MOST, default=0)
COUNT = whole("count", "How many jobs at most.", 1, BATCH_MOST, default=1)
LIMIT = whole("limit", "How many at most.", 1, PAGE_MOST, default=PAGE)
CURSOR = text("cursor", "What the page before answered: go on there.", 512, blank=True)

# --- what may be said about a push

OF_A_BATCH = (
    Field(
        name="delayed",
        kind=Kind.MOMENT,
        means="Not before this moment; one in the past means now.",
        blank=True,
    ),
    duration("delay", "Not before so much time has passed.", 0, DELAY_MOST, instead_of="delayed"),
    whole("priority", "9 comes first.", 1, PRIORITY_MOST, default=PRIORITY),
    duration("ttl", "Dropped, and counted as expired, if nobody took it by then.", 0.001, DELAY_MOST),
    whole(
        "attempts",
        "How often it is leased before it is dead, instead of the policy's `max_attempts`.",
        1,
        ATTEMPTS_MOST,
    ),
    duration(
        "keep",
        "How long it can be looked at when it is done, instead of the policy's `keep`; in whole seconds.",
        0,
        KEEP_MOST,
    ),
    text("group", "Ready jobs of different groups are handed out in turn.", KEY_MOST),
)
OF_A_PUSH = (
    *OF_A_BATCH,
    text("uniq", "Refused while another job of this queue with this key waits.", KEY_MOST, blank=True),
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
        "For a day the same push with this key stores nothing and gets the same answer.",
        KEY_MOST,
        header="Idempotency-Key",
    ),
    text(
        "traceparent",
        "W3C Trace Context: kept, and handed out with the job.",
        KEY_MOST,
        header="traceparent",
    ),
)

# --- what may be said about a lease

TOKEN = text("lease", "The token of the lease.", 128, required=True, header="Presque-Lease", also_query=True)
ERROR = text("error", "What went wrong.", TEXT_MOST, blank=True)
BACKTRACE = text("backtrace", "Where it went wrong.", TEXT_MOST, blank=True)
RETRY_IN = duration(
    "retry_in", "After how long it is tried again, instead of the policy's `backoff`.", 0, DELAY_MOST
)
RETRY = flag("retry", "`false`: it is not tried again but dead.", default=True)
RESULT = value("result", "What came of it: any JSON value.", TEXT_MOST)
PROGRESS = value("progress", "How far it is: any JSON value.", TEXT_MOST)
GIVE_BACK_DELAY = duration("delay", "After how long it is ready again.", 0, DELAY_MOST, default=0)
EXTEND_SECONDS = duration(
    "seconds",
    "How long the lease lasts from now; as long as it was given for unless said.",
    1,
    LEASE_MOST,
)
LEASE_SECONDS = duration("seconds", "For how long, instead of the policy's `lease`.", 1, LEASE_MOST)
ATTEMPT_ID = text(
    "attempt_id",
    "Repeated within the first minute of the lease it gives the same jobs again.",
    ATTEMPT_ID_MOST,
    blank=True,
)

OF_A_SETTLE = {
    "ack": ("The job is done: end its lease.", (RESULT,)),
    "fail": (
        "The job did not work: end its lease. It is tried again, or dead.",
        (ERROR, BACKTRACE, RETRY_IN, RETRY),
    ),
    "release": ("Give the job back, which is not a failure: end its lease.", (GIVE_BACK_DELAY,)),
    "extend": ("The job takes longer: its lease goes on.", (EXTEND_SECONDS, PROGRESS)),
}
SETTLEMENTS = tuple(
    many(name, means, group(name, "One lease.", QUEUE, ID, TOKEN, *more), SETTLE_MOST, undecoded=True)
    for name, (means, more) in OF_A_SETTLE.items()
)

# --- the policy of a queue; null goes back to the default

POLICY = (
    duration("lease", "How long a lease lasts, unless it says.", 1, LEASE_MOST, nullable=True, default=60),
    whole(
        "max_attempts",
        "How often a job is leased before it is dead.",
        1,
        ATTEMPTS_MOST,
        nullable=True,
        default=5,
    ),
    group(
        "backoff",
        "How long a failed job waits: `first`, then each time `factor` times as long, at most `most`; varied "
        "at random by `jitter` of it.",
        duration("first", "After the first failure.", 0, DELAY_MOST, default=15),
        number("factor", "How it grows.", 1, 100, default=2),
        duration("most", "The longest wait.", 0, DELAY_MOST, default=3600),
        number("jitter", "From 0 to 1.", 0, 1, default=0.1),
        nullable=True,
    ),
    duration("ttl", "What a push without `ttl` has.", 0.001, DELAY_MOST, nullable=True),
    duration(
        "keep",
        "How long finished jobs can be looked at; in whole seconds.",
        0,
        KEEP_MOST,
        nullable=True,
        default=0,
    ),
    whole(
        "dead_most",
        "How many dead jobs are kept; the oldest go.",
        0,
        COUNT_MOST,
        nullable=True,
        default=10_000,
    ),
    whole("max_length", "How many jobs may wait, scheduled ones included.", 1, COUNT_MOST, nullable=True),
    word(
        "overflow",
        "What happens to a push beyond `max_length`: 429.",
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
        duration("seconds", "In how long.", 0.001, DELAY_MOST, required=True),
        nullable=True,
    ),
    duration(
        "expires",
        "A queue that has been empty and unused for so long is forgotten.",
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
    word("missed", "What becomes of moments at which no server ran.", "skip", "once", "all", default="once"),
    word(
        "overlap",
        "Whether it is pushed while the one before is not finished.",
        "allow",
        "skip",
        default="allow",
    ),
    *(_of_a_job[name] for name in ("priority", "ttl", "attempts", "keep", "group")),
)


def _push_and_fetch() -> Iterator[Verb]:
    yield Verb(
        name="push",
        means="Put a job on a queue.",
        scope="push",
        route="POST /q/{queue}",
        fields=of(QUEUE, JOB, *OF_A_PUSH, *FROM_HEADERS),
        body="job",
        status=201,
        answers="pushed",
        refuses=OF_PUSHES,
    )
    yield Verb(
        name="put_back",
        means="Put a job that failed on its queue once more, and count a failure.",
        scope="push",
        route="PUT /q/{queue}",
        fields=of(QUEUE, JOB, *OF_A_PUSH, *FROM_HEADERS),
        body="job",
        status=201,
        answers="pushed",
        refuses=OF_PUSHES,
        worker="counted",
    )
    jobs = many("jobs", "The jobs.", JOB, BATCH_MOST, required=True, undecoded=True)
    yield Verb(
        name="push_many",
        means="Put many jobs on a queue, all of them or none.",
        scope="push",
        route="POST /qb/{queue}",
        fields=of(QUEUE, jobs, *OF_A_BATCH, *FROM_HEADERS),
        body="raw",
        status=201,
        answers="pushed_many",
        refuses=OF_PUSHES,
    )
    yield Verb(
        name="fetch",
        means="Take a job off the first queue that has one, at once and for good.",
        scope="fetch",
        route="GET /q/{queues}",
        fields=of(QUEUES, WAIT),
        answers="fetched",
        waits=True,
        takes=True,
        refuses=(404,),
        worker="counted",
    )
    batch_size = whole("batch_size", "How many at most.", 1, BATCH_MOST, default=BATCH, blank=True)
    yield Verb(
        name="fetch_many",
        means="Take many jobs off a queue, at once and for good.",
        scope="fetch",
        route="GET /qb/{queue}",
        fields=of(QUEUE, batch_size),
        answers="fetched_many",
        takes=True,
        refuses=(404,),
        worker="counted",
    )


def _leases() -> Iterator[Verb]:
    settle = group("settle", "Leases to settle first.", *SETTLEMENTS, undecoded=True)
    yield Verb(
        name="lease",
        means="Take jobs for a while.",
        scope="lease",
        route="POST /q/{queues}/lease",
        fields=of(QUEUES, COUNT, LEASE_SECONDS, WAIT, ATTEMPT_ID, settle),
        body="fields",
        answers="leased",
        problem=True,
        waits=True,
        worker="counted",
    )
    yield Verb(
        name="settle",
        means="End or extend many leases.",
        scope="lease",
        route="POST /settle",
        fields=of(*SETTLEMENTS),
        body="raw",
        answers="settled_many",
        problem=True,
        worker="counted",
    )
    for name, (means, more) in OF_A_SETTLE.items():
        yield Verb(
            name=name,
            means=means,
            scope="lease",
            route=f"POST /j/{{queue}}/{{id}}/{name}",
            fields=of(QUEUE, ID, TOKEN, *more),
            body="fields",
            answers="settled",
            problem=True,
            refuses=(404, 409, 410),
            worker="counted",
        )


def _single_jobs() -> Iterator[Verb]:
    yield Verb(
        name="job",
        means="All that is known of a job; with `wait`, once it is done or dead.",
        scope="read",
        route="GET /j/{queue}/{id}",
        fields=of(QUEUE, ID, WAIT),
        answers="job",
        problem=True,
        waits=True,
        reads=True,
        refuses=(404, 410),
    )
    yield Verb(
        name="jobs",
        means="The jobs of a queue in one state.",
        scope="read",
        route="GET /j/{queue}",
        fields=of(QUEUE, word("state", "Which jobs.", *STATES, required=True), LIMIT, CURSOR),
        answers="jobs",
        reads=True,
        when="state",
    )
    changes = (_of_a_job["priority"], _of_a_job["delay"], _of_a_job["delayed"])
    yield Verb(
        name="change",
        means="Change a job that waits.",
        scope="control",
        route="PATCH /j/{queue}/{id}",
        fields=of(QUEUE, ID, *changes, value("body", "Another job in its place.")),
        body="fields",
        answers="job",
        problem=True,
        refuses=(404, 409, 507),
    )
    yield Verb(
        name="delete",
        means="Take a job away. A leased one goes when its holder lets go.",
        scope="control",
        route="DELETE /j/{queue}/{id}",
        fields=of(QUEUE, ID),
        status=204,
        problem=True,
        refuses=(404,),
    )
    yield Verb(
        name="retry",
        means="Let a dead job be tried again.",
        scope="control",
        route="POST /j/{queue}/{id}/retry",
        fields=of(QUEUE, ID),
        answers="job",
        problem=True,
        without=("id", "retry_all"),
        refuses=(404, 409),
    )
    limit = whole("limit", "How many at most.", 1, RETRY_MOST)
    rate = number("rate", "How many a second.", 0.001, RATE_MOST)
    yield Verb(
        name="retry_all",
        means="Let dead jobs be tried again, those that died first.",
        scope="control",
        route="POST /j/{queue}/retry",
        fields=of(QUEUE, limit, rate),
        body="fields",
        answers="retried",
        problem=True,
    )
    yield Verb(
        name="explain",
        means="Why a job is not running.",
        scope="read",
        route="GET /j/{queue}/{id}/explain",
        fields=of(QUEUE, ID),
        answers="explained",
        problem=True,
        reads=True,
        refuses=(404,),
    )


def _policies_and_recurring_jobs() -> Iterator[Verb]:
    yield Verb(
        name="policy",
        means="What holds for all jobs of a queue.",
        scope="read",
        route="GET /p/{queue}",
        fields=of(QUEUE),
        answers="policy",
        problem=True,
        reads=True,
    )
    yield Verb(
        name="change_policy",
        means="Set the fields of a policy that are given; null goes back to the default.",
        scope="control",
        route="PATCH /p/{queue}",
        fields=of(QUEUE, *POLICY),
        body="fields",
        answers="policy",
        problem=True,
    )
    yield Verb(
        name="crons",
        means="Recurring jobs, by name.",
        scope="read",
        route="GET /cron/",
        fields=of(LIMIT, dataclasses.replace(NAME, name="cursor", required=False, blank=True)),
        answers="crons",
        problem=True,
        reads=True,
    )
    yield Verb(
        name="cron",
        means="One recurring job.",
        scope="read",
        route="GET /cron/{name}",
        fields=of(NAME),
        answers="cron",
        problem=True,
        reads=True,
        refuses=(404,),
    )
    yield Verb(
        name="put_cron",
        means="Define a recurring job.",
        scope="admin",
        route="PUT /cron/{name}",
        fields=of(NAME, *RECURRING),
        body="fields",
        answers="cron",
        problem=True,
        refuses=(507,),
    )
    yield Verb(
        name="run_cron",
        means="Push the job of a recurring job now. Its moments stay as they are.",
        scope="control",
        route="POST /cron/{name}/run",
        fields=of(NAME),
        status=201,
        answers="ran",
        problem=True,
        refuses=(404, 409, 429, 507),
    )
    yield Verb(
        name="pause_cron",
        means="Push no more of a recurring job until it is resumed.",
        scope="control",
        route="POST /cron/{name}/pause",
        fields=of(NAME),
        answers="cron",
        problem=True,
        refuses=(404,),
    )
    yield Verb(
        name="resume_cron",
        means="Go on with a recurring job, from its next moment on.",
        scope="control",
        route="POST /cron/{name}/resume",
        fields=of(NAME),
        answers="cron",
        problem=True,
        refuses=(404, 409),
    )
    yield Verb(
        name="delete_cron",
        means="Push no more of a recurring job.",
        scope="admin",
        route="DELETE /cron/{name}",
        fields=of(NAME),
        status=204,
        problem=True,
        refuses=(404,),
    )


def _queues() -> Iterator[Verb]:
    yield Verb(
        name="purge",
        means="Delete all jobs of a queue, and its counters; with `forget` the queue itself.",
        scope="control",
        route="DELETE /q/{queue}",
        fields=of(QUEUE, flag("forget", "Whether to forget the queue, too.", default=False)),
        status=204,
    )
    yield Verb(
        name="info",
        means="The classic counts of a queue.",
        scope="read",
        route="GET /j/{queue}",
        fields=of(QUEUE),
        answers="info",
        reads=True,
    )
    yield Verb(
        name="queues",
        means="The names of all queues.",
        scope="read",
        route="GET /status/",
        answers="queues",
        reads=True,
    )
    with_desc = flag(
        "with_desc", "Whether to show the texts of the next 1000 jobs too.", default=False, blank=True
    )
    yield Verb(
        name="size",
        means="How many jobs of a queue are ready.",
        scope="read",
        route="GET /status/{queue}",
        fields=of(QUEUE, with_desc),
        answers="size",
        reads=True,
    )
    yield Verb(
        name="peek",
        means="Look at the next jobs without taking them.",
        scope="read",
        fields=of(QUEUE, whole("count", "How many at most.", 1, PEEK_MOST, default=PEEK)),
        reads=True,
    )
    yield Verb(
        name="started",
        means="Whether a queue hands out jobs.",
        scope="read",
        route="GET /control/{queue}",
        fields=of(QUEUE),
        answers="started",
        reads=True,
    )
    yield Verb(
        name="control",
        means="Start or stop a queue.",
        scope="control",
        route="POST /control/{queue}",
        fields=of(QUEUE, word("status", "What it should do.", "start", "stop", required=True)),
        body="raw",
        answers="updated",
        command=False,
    )
    yield Verb(
        name="start", means="Let a stopped queue hand out jobs again.", scope="control", fields=of(QUEUE)
    )
    yield Verb(
        name="stop",
        means="Let a queue hand out nothing. It still takes jobs.",
        scope="control",
        fields=of(QUEUE),
    )
    yield Verb(
        name="all_stats",
        means="Everything about this server and its queues.",
        scope="read",
        route="GET /stats/",
        answers="all_stats",
        reads=True,
    )
    yield Verb(
        name="stats",
        means="Everything about one queue.",
        scope="read",
        route="GET /stats/{queue}",
        fields=of(QUEUE),
        answers="stats",
        reads=True,
        without=("queue", "all_stats"),
    )


def _workers() -> Iterator[Verb]:
    yield Verb(
        name="register",
        means="The worker in the header takes jobs of this queue.",
        scope="lease",
        route="POST /w/{queue}",
        fields=of(QUEUE),
        status=201,
        refuses=(507,),
        worker="required",
    )
    yield Verb(
        name="unregister",
        means="The worker in the header takes no more jobs of this queue.",
        scope="lease",
        route="DELETE /w/{queue}",
        fields=of(QUEUE),
        status=204,
        worker="required",
    )
    only = dataclasses.replace(WORKER, means="Only this worker.", required=False, blank=True)
    of_queue = Field(
        name="queue_name",
        kind=Kind.QUEUE,
        means="The workers of this queue.",
        blank=True,
        instead_of="worker_id",
    )
    with_desc = flag("with_desc", "Whether to show all that is known of them.", default=False, blank=True)
    yield Verb(
        name="workers",
        means="Who works on what.",
        scope="read",
        route="GET /w/",
        also=("GET /w/{anything}",),
        fields=of(only, of_queue, with_desc),
        answers="workers",
        reads=True,
        refuses=(404,),
    )
    yield Verb(
        name="report",
        means="The worker in the header says what it is doing, and hears what it is asked to do.",
        scope="lease",
        route="PUT /w/",
        body="raw",
        answers="told",
        command=False,
        refuses=(507,),
        worker="required",
    )
    status = word("status", "What it should do.", "start", "quiet", "stop", required=True)
    yield Verb(
        name="tell_worker",
        means="Ask a worker to be quiet, to stop, or to go on.",
        scope="control",
        route="POST /w/",
        fields=of(WORKER, status),
        body="fields",
        answers="worker_told",
        refuses=(404, 507),
    )
    yield Verb(
        name="leave",
        means="The worker in the header has ended.",
        scope="lease",
        route="DELETE /w/",
        status=204,
        worker="required",
    )


def _many_in_one() -> Iterator[Verb]:
    yield Verb(
        name="commands",
        means="Carry out commands.",
        scope="any",
        route="POST /queue",
        body="raw",
        answers="commanded",
        waits=True,
        command=False,
        refuses=(404, 409, 410, 422, 429, 507),
        worker="counted",
    )
    yield Verb(
        name="stream",
        means="Take jobs for good, one a line, as they come.",
        scope="fetch",
        route="GET /c/{queues}",
        fields=of(QUEUES, duration("wait", "The longest life of the stream.", 0, STREAM_MOST)),
        answers="lines",
        waits=True,
        takes=True,
        streams=True,
        command=False,
        worker="counted",
    )
    wanted = dataclasses.replace(QUEUES, means="Only of these queues.", required=False, blank=True)
    after = text(
        "last_event_id", "The last event that the client has seen: go on there.", 128, header="Last-Event-ID"
    )
    jobs = flag("jobs", "Whether to tell what happens to single jobs.", default=False)
    yield Verb(
        name="events",
        means="What happens, as it happens.",
        scope="read",
        route="GET /events",
        fields=of(wanted, jobs, after),
        answers="events",
        waits=True,
        streams=True,
        command=False,
    )
    yield Verb(
        name="openapi",
        means="All of this as an OpenAPI document.",
        scope="any",
        route="GET /openapi.json",
        answers="openapi",
        reads=True,
        command=False,
    )


def _restmq() -> Iterator[Verb]:
    job = value("value", "The job: any JSON value.", required=True)
    key = text("key", "The queue and the id of a job, as `add` answers it.", KEY_MOST, required=True)
    yield Verb(name="add", means="RestMQ's push.", scope="push", fields=of(QUEUE, job))
    yield Verb(name="take", means="RestMQ's fetch.", scope="fetch", fields=of(QUEUE), takes=True)
    yield Verb(name="get", means="RestMQ's look at the next job.", scope="read", fields=of(QUEUE), reads=True)
    yield Verb(name="del", means="RestMQ's delete.", scope="control", fields=of(QUEUE, key))


VERBS: dict[str, Verb] = {
    verb.name: verb
    for rows in (
        _push_and_fetch,
        _leases,
        _single_jobs,
        _policies_and_recurring_jobs,
        _queues,
        _workers,
        _many_in_one,
        _restmq,
    )
    for verb in rows()
}
"""Every verb by its name."""

COMMANDS: dict[str, Verb] = {name: verb for name, verb in VERBS.items() if verb.command}
"""Those that are commands of `POST /queue`."""

CONSUME = Verb(
    name="lease",
    means="Have up to `count` jobs leased at any time, as they come; 0 ends it.",
    scope="lease",
    fields=of(QUEUES, dataclasses.replace(COUNT, least=0), LEASE_SECONDS),
)
"""What `lease` means on a connection that stays open: it grants credits."""

LIVE_COMMANDS: dict[str, Verb] = {**COMMANDS, "lease": CONSUME}
"""The commands of a WebSocket."""
