"""What each verb is asked, as data: a scenario prepares a queue and says with which fields the verb comes.

Nothing here says what must be answered. The same scenario goes through every door, and each answer is
compared with that of the HTTP route and with the OpenAPI document: see test_commands.py and test_openapi.py.
A verb without a scenario fails there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode
from uuid import uuid4

from presque.verbs import VERBS
from presque.verbs.verb import Verb
from tests import rig

Fields = dict[str, Any]


def request_of(verb: Verb, fields: Fields) -> tuple[str, str, str | None, dict[str, str]]:
    """The HTTP request that says this: method, target, body, headers. All of it comes from the verb's row."""
    left = dict(fields)
    path = verb.path
    if "queues" in verb.fields and verb.fields["queues"].required and "queues" not in verb.in_path:
        left["queues"] = left.pop("queue", None)  # a command calls it so
    for name in verb.in_path:
        said = left.pop("queue" if name == "queues" else name)
        path = path.replace(f"{{{name}}}", quote(str(said), safe="~:@+,*!"))
    body: str | None = None
    headers = {}
    for name, one in verb.headers.items():
        if one.name in left and verb.body != "fields":
            headers[name] = str(left.pop(one.name))
    if verb.body == "job":
        body = json.dumps(left.pop("job")) if "job" in left else None
    elif verb.body == "fields":
        body, left = json.dumps(left), {}
    elif verb.body == "raw":
        inside = {name: value for name, value in left.items() if name not in verb.parameters}
        body = json.dumps(inside)
        left = {name: value for name, value in left.items() if name in verb.parameters}
    texts = {name: str(value).lower() if isinstance(value, bool) else value for name, value in left.items()}
    return verb.method, path + (f"?{urlencode(texts)}" if texts else ""), body, headers


class World:
    """A queue, a worker and a recurring job that nobody else uses, on a real server."""

    def __init__(self, server: rig.Server) -> None:
        name = uuid4().hex[:10]
        self.server = server
        self.queue = f"q{name}"
        self.worker = f"w{name}"
        self.cron = f"c{name}"
        self.task = ""  # the id of a bulk task

    def ask(self, verb: str, *, worker: bool = False, **fields: Any) -> rig.Answer:
        """Ask through the HTTP route."""
        method, target, body, headers = request_of(VERBS[verb], fields)
        if worker:
            headers["X-presque-workerid"] = self.worker
        return self.server.ask(method, target, body, 30, **headers)

    def done(self, verb: str, **fields: Any) -> Any:
        """Ask, and expect that it works."""
        answer = self.ask(verb, **fields)
        assert answer.status < 400, (verb, fields, answer)
        return answer.json if answer.body else None

    def push(self, job: Any = 1, **fields: Any) -> str:
        return str(self.done("push", queue=self.queue, job=job, **fields)["id"])

    def lease(self, job: Any = 1, **fields: Any) -> Fields:
        """Push a job and lease it: queue, id and token, as a settlement names them."""
        self.push(job, **fields)
        [found] = self.done("lease", queue=self.queue, seconds=600)["jobs"]
        return {"queue": self.queue, "id": found["id"], "lease": found["lease"]}

    def dead(self, job: Any = 1) -> Fields:
        """A dead job: queue and id."""
        held = self.lease(job)
        self.done("fail", **held, error="no", backtrace="at line 3", retry=False)
        return {"queue": self.queue, "id": held["id"]}

    def recur(self, **fields: Any) -> Fields:
        """A recurring job that does not fire: its name."""
        self.done("put_cron", name=self.cron, queue=self.queue, body={"n": 1}, schedule="0 0 1 1 *", **fields)
        return {"name": self.cron}

    def policy(self, **fields: Any) -> None:
        self.done("change_policy", queue=self.queue, **fields)

    def plain(self, said: Any) -> Any:
        """An answer without what differs from one time to the next: names, tokens, moments, ages."""
        text = json.dumps(said, sort_keys=True)
        for ours, name in ((self.queue, "QUEUE"), (self.worker, "WORKER"), (self.cron, "CRON")):
            text = text.replace(ours, name)
        if self.task:
            text = re.sub(r'("(cursor|id)"): "\d+"', r'\1: "TASK"', text)
        text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)", "MOMENT", text)
        text = re.sub(r'("(lease|traceparent)"): "[^"]+"', r'\1: "TOKEN"', text)
        return json.loads(re.sub(r'("(oldest_seconds|silent_seconds)"): [\d.]+', r"\1: 0", text))


@dataclass(frozen=True)
class Scenario:
    """One question: `before` prepares, and returns the fields that the verb is asked with."""

    verb: str
    about: str
    before: Callable[[World], Fields]
    status: int = 200
    worker: bool = field(default=False, kw_only=True)

    @property
    def name(self) -> str:
        return f"{self.verb}: {self.about}"


def a_queue(world: World) -> Fields:
    return {"queue": world.queue}


def a_task(world: World) -> Fields:
    """A bulk task that has ended."""
    world.dead()
    world.task = world.done("new_task", queue=world.queue, act="retry")["id"]
    rig.eventually(lambda: world.done("task", task_id=world.task)["status"] == "done")
    return {"task_id": world.task}


def a_paused_task(world: World) -> Fields:
    """A bulk task that has just begun and goes on very slowly."""
    world.dead()
    world.task = world.done("new_task", queue=world.queue, act="retry", rate=0.001)["id"]
    world.done("pause_task", task_id=world.task)
    return {"task_id": world.task}


def ask(**fields: Any) -> Callable[[World], Fields]:
    """The queue and these fields."""
    return lambda world: {"queue": world.queue, **fields}


def the_worker(**fields: Any) -> Callable[[World], Fields]:
    """The worker, which has reported, and these fields."""
    return lambda world: reported(world) | {"worker_id": world.worker, **fields}


def paused(world: World) -> Fields:
    found = world.recur()
    world.done("pause_cron", **found)
    return found


def with_a_job(world: World) -> Fields:
    world.push({"n": 12345678901234567890})
    return {"queue": world.queue}


def a_job(world: World) -> Fields:
    return {"queue": world.queue, "id": world.push()}


def two_jobs(world: World) -> None:
    world.push("a")
    world.push([2, {"b": None}])


def policed(world: World) -> None:
    world.policy(**POLICY)


def no_job(world: World) -> Fields:
    world.push()
    return {"queue": world.queue, "id": "77"}


def after(do: Callable[[World], Any], **more: Any) -> Callable[[World], Fields]:
    """The queue, once something was done to it, and further fields."""

    def before(world: World) -> Fields:
        do(world)
        return {"queue": world.queue, **more}

    return before


def held(**more: Any) -> Callable[[World], Fields]:
    """A leased job and its token, and further fields."""
    return lambda world: world.lease() | more


def lost(world: World) -> Fields:
    """A job that somebody else holds."""
    return {**world.lease(), "lease": "none"}


def finished(world: World) -> Fields:
    """A job that somebody else finished, while it can still be looked at."""
    was = world.lease(keep=3600)
    world.done("ack", **was)
    return {**was, "lease": "none"}


def many_held(world: World) -> Fields:
    one, two, three, four = (world.lease(number) for number in range(4))
    return {
        "ack": [{**one, "result": {"x": 1}}],
        "fail": [{**two, "error": "no", "retry_in": "5m"}, {**one, "lease": "none"}],
        "release": [{**three, "delay": 5}],
        "extend": [{**four, "seconds": 100, "progress": 0.5}],
    }


def settle_and_lease(world: World) -> Fields:
    was = world.lease()
    world.push(2)
    return {"queue": world.queue, "settle": {"ack": [was]}}


def pushed_in_full(world: World) -> Fields:
    return {"queue": world.queue, "job": {"a": [1, "é", None]}, **FULL}


def full(world: World) -> Fields:
    world.policy(max_length=1)
    world.push()
    return {"queue": world.queue, "job": 1}


def known_key(verb: str, **fields: Any) -> Callable[[World], Fields]:
    """A push with the key of another push of the same kind."""

    def before(world: World) -> Fields:
        world.done(verb, queue=world.queue, idempotency_key="k", **fields)
        other = {name: [2] for name in fields}
        return {"queue": world.queue, "idempotency_key": "k", **other}

    return before


def stopped(world: World) -> None:
    world.push()
    world.done("control", queue=world.queue, status="stop")


def a_stopped_job(world: World) -> Fields:
    stopped(world)
    return a_job(world)


def a_full_job(world: World) -> Fields:
    """A job that has nearly everything that a job can have."""
    world.push({"a": 1}, **FULL, worker=False)
    found = world.server.ask(
        "POST", f"/q/{world.queue}/lease", '{"seconds": 600}', X_presque_workerid=world.worker
    ).json["jobs"][0]
    holder = {"queue": world.queue, "id": found["id"], "lease": found["lease"]}
    world.done("extend", **holder, progress={"half": True})
    world.done("fail", **holder, error="no", backtrace="at line 3", retry_in=0)
    [found] = world.done("lease", queue=world.queue, seconds=600)["jobs"]
    world.done("ack", **{**holder, "lease": found["lease"]}, result={"sent": True})
    return {"queue": world.queue, "id": found["id"]}


def reported(world: World) -> Fields:
    world.ask("report", worker=True, queues=[world.queue], doing="this")
    return {}


def with_worker(world: World) -> Fields:
    world.ask("register", worker=True, queue=world.queue)
    return {}


FULL: Fields = {
    "priority": 9,
    "delay": 0,
    "ttl": "1h",
    "attempts": 3,
    "keep": "1h",
    "group": "ana",
    "uniq": "key",
    "uniq_until": "done",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}
CHANGES: Fields = {"priority": 9, "delay": 50, "body": {"b": 1}}
BATCH: Fields = {name: FULL[name] for name in ("priority", "delay", "ttl", "attempts", "keep", "group")}
POLICY: Fields = {
    "lease": 30,
    "max_attempts": 3,
    "backoff": {"first": 1, "factor": 3, "most": 100, "jitter": 0},
    "ttl": 1000,
    "keep": "1h",
    "dead_most": 5,
    "max_length": 50,
    "overflow": "reject",
    "max_leased": 2,
    "group_leased": 1,
    "rate": {"count": 10, "seconds": 60},
    "expires": "1d",
    "delivery": "broadcast",
}
RECURRING: Fields = {
    "timezone": "Europe/Paris",
    "missed": "skip",
    "overlap": "skip",
    "priority": 7,
    "ttl": 1.5,
    "attempts": 2,
    "keep": 60,
    "group": "g",
}


SCENARIOS = (
    Scenario("push", "a job", ask(job={"a": 1}), 201),
    Scenario("push", "with all that may be said", pushed_in_full, 201),
    Scenario("push", "at a moment", ask(job=1, delayed="2099-01-01T00:00:00Z"), 201),
    Scenario("push", "a key that waits", after(lambda w: w.push(uniq="u"), job=2, uniq="u"), 400),
    Scenario("push", "a known key", known_key("push", job=1), 422),
    Scenario("push", "into a full queue", full, 429),
    Scenario("push", "out of bounds", ask(job=1, priority=10), 400),
    Scenario("push", "fields that do not go together", ask(job=1, uniq_until="done"), 400),
    Scenario("push", "two of one kind", ask(job=1, delay=1, delayed=1), 400),
    Scenario("push", "an unknown field", ask(job=1, priorty=1), 400),
    Scenario("push", "no job", a_queue, 400),
    Scenario("push", "a name that is none", lambda w: {"queue": "-x", "job": 1}, 400),
    Scenario("put_back", "a job", lambda w: {"queue": w.queue, "job": [1]}, 201, worker=True),
    Scenario("put_back", "with all that may be said", pushed_in_full, 201),
    Scenario("put_back", "a known key", known_key("put_back", job=1), 422),
    Scenario("put_back", "into a full queue", full, 429),
    Scenario("push_many", "two jobs", ask(jobs=[1, {"b": 2}]), 201),
    Scenario("push_many", "with all that may be said", ask(jobs=[1], **BATCH), 201),
    Scenario("push_many", "none", ask(jobs=[]), 201),
    Scenario("push_many", "a known key", known_key("push_many", jobs=[1]), 422),
    Scenario("push_many", "no list", ask(jobs=5), 400),
    Scenario("push_many", "into a full queue", lambda w: full(w) and {"queue": w.queue, "jobs": [1]}, 429),
    Scenario("fetch", "a job", with_a_job, worker=True),
    Scenario("fetch", "nothing", a_queue, 404),
    Scenario("fetch", "of a stopped queue", after(stopped), 404),
    Scenario("fetch", "of a list", lambda w: with_a_job(w) and {"queue": f"{w.queue},{w.queue}-no*"}),
    Scenario("fetch", "waiting too long", ask(wait=61), 400),
    Scenario("fetch_many", "two jobs", after(two_jobs, batch_size=5), worker=True),
    Scenario("fetch_many", "nothing", a_queue, 404),
    Scenario("fetch_many", "of a stopped queue", after(stopped), 404),
    Scenario("lease", "a job", with_a_job, worker=True),
    Scenario("lease", "with all that may be said", after(
        lambda w: w.push(1, traceparent=FULL["traceparent"]), count=5, seconds="1m", wait=0, attempt_id="one"
    )),
    Scenario("lease", "nothing", a_queue, 204),
    Scenario("lease", "of a stopped queue", after(stopped), 204),
    Scenario("lease", "and settle first", settle_and_lease),
    Scenario("lease", "too many", ask(count=1001), 400),
    Scenario("lease", "a wrong type", ask(count="many"), 400),
    Scenario("settle", "leases of every kind", many_held, worker=True),
    Scenario("settle", "nothing", lambda w: {}),
    Scenario("settle", "a list that is none", lambda w: {"ack": 5}, 400),
    Scenario("ack", "a job", held(result={"sent": True}), worker=True),
    Scenario("ack", "a lost lease", lost, 409),
    Scenario("ack", "a job that was finished", finished, 410),
    Scenario("ack", "no job", lambda w: no_job(w) | {"lease": "none"}, 404),
    Scenario("ack", "without a token", a_job, 400),
    Scenario("fail", "to be tried again", held(error="no", backtrace="at 3", retry_in="5m"), worker=True),
    Scenario("fail", "for good", held(retry=False)),
    Scenario("fail", "a lost lease", lost, 409),
    Scenario("fail", "no job", lambda w: no_job(w) | {"lease": "none"}, 404),
    Scenario("fail", "a job that was finished", finished, 410),
    Scenario("release", "a job", held()),
    Scenario("release", "for later", held(delay=100)),
    Scenario("release", "a lost lease", lost, 409),
    Scenario("release", "no job", lambda w: no_job(w) | {"lease": "none"}, 404),
    Scenario("release", "a job that was finished", finished, 410),
    Scenario("extend", "a job", held(seconds=500, progress=[1, 2])),
    Scenario("extend", "a job that somebody deleted", lambda w: deleted(w)),
    Scenario("extend", "a lost lease", lost, 409),
    Scenario("extend", "no job", lambda w: no_job(w) | {"lease": "none"}, 404),
    Scenario("extend", "a job that was finished", finished, 410),
    Scenario("job", "that is ready", a_job),
    Scenario("job", "that has everything", a_full_job),
    Scenario("job", "that is dead", World.dead),
    Scenario("job", "that is not there", no_job, 404),
    Scenario("job", "waited for", lambda w: World.dead(w) | {"wait": 5}),
    Scenario("jobs", "that are ready", after(two_jobs, state="ready")),
    Scenario("jobs", "a page", after(two_jobs, state="ready", limit=1)),
    Scenario("jobs", "the page behind", after(two_jobs, state="ready", limit=1, cursor="5:0:1")),
    Scenario("jobs", "that are dead", after(World.dead, state="dead")),
    Scenario("jobs", "of no state", after(World.push, state="red"), 400),
    Scenario("change", "all that can be", lambda w: {**a_job(w), **CHANGES}),
    Scenario("change", "nothing", a_job, 400),
    Scenario("change", "a leased job", lambda w: {**no_token(w.lease()), "priority": 1}, 409),
    Scenario("change", "no job", lambda w: no_job(w) | {"priority": 1}, 404),
    Scenario("delete", "a job that waits", a_job, 204),
    Scenario("delete", "a leased job", lambda w: no_token(w.lease()), 202),
    Scenario("delete", "no job", no_job, 404),
    Scenario("retry", "a dead job", World.dead),
    Scenario("retry", "a leased job", lambda w: no_token(w.lease()), 409),
    Scenario("retry", "no job", no_job, 404),
    Scenario("retry_all", "dead jobs", after(World.dead, limit=10, rate=100)),
    Scenario("retry_all", "where there are none", a_queue),
    Scenario("explain", "a job that waits", a_job),
    Scenario("explain", "a leased job", lambda w: no_token(w.lease())),
    Scenario("explain", "a dead job", World.dead),
    Scenario("explain", "a job of a stopped queue", a_stopped_job),
    Scenario("explain", "no job", no_job, 404),
    Scenario("search", "a text", lambda w: with_a_job(w) and {"queues": w.queue, "find": "123456789"}),
    Scenario("search", "with all that may be said", lambda w: World.dead(w) and {
        "queues": f"{w.queue}*", "state": "dead", "text": "1", "error": "n", "like": "no", "older": 0,
        "newer": "1h", "priority": 5, "limit": 3,
    }),
    Scenario("search", "nothing", lambda w: {"queues": w.queue, "find": "x", "group": "g"}),
    Scenario("search", "from nowhere", lambda w: {"queues": w.queue, "cursor": "x"}, 400),
    Scenario("failures", "of a queue", lambda w: World.dead(w) and {"queues": w.queue}),
    Scenario("failures", "that are tried again", lambda w: {"queues": w.queue, "state": "scheduled"}),
    Scenario("failures", "of a state that has none", lambda w: {"state": "ready"}, 400),
    Scenario("import", "a job", ask(body={"a": 1}, state="dead", errors=[{"at": 1, "error": "no"}])),
    Scenario("import", "into a full queue", lambda w: full(w) and {"queue": w.queue, "body": 1}, 429),
    Scenario("import", "what is not a job", ask(state="dead"), 400),
    Scenario("new_task", "to retry", after(World.dead, act="retry", dry_run=True)),
    Scenario("new_task", "to delete, with all that may be said", after(
        World.push, act="delete", state="ready", text="1", rate=10, limit=5, dry_run=True, older=0,
    )),
    Scenario("new_task", "that begins", after(lambda w: setattr(w, "task", "1"), act="retry"), 201),
    Scenario("new_task", "to delete what is in no state", ask(act="delete"), 400),
    Scenario("new_task", "to retry what is not dead", ask(act="retry", state="ready"), 400),
    Scenario("new_task", "to do what is not known", ask(act="eat"), 400),
    Scenario("tasks", "all", lambda w: a_task(w) and {"limit": 1}),
    Scenario("tasks", "from nowhere", lambda w: {"cursor": "x"}, 400),
    Scenario("task", "that has ended", a_task),
    Scenario("task", "that is not there", lambda _: {"task_id": "0"}, 404),
    Scenario("pause_task", "one", a_paused_task),
    Scenario("pause_task", "one that is not there", lambda _: {"task_id": "0"}, 404),
    Scenario("resume_task", "one that has ended", a_task),
    Scenario("resume_task", "one that is not there", lambda _: {"task_id": "0"}, 404),
    Scenario("cancel_task", "one that has ended", a_task),
    Scenario("cancel_task", "one that is not there", lambda _: {"task_id": "0"}, 404),
    Scenario("policy", "by default", a_queue),
    Scenario("policy", "that was changed", after(policed)),
    Scenario("change_policy", "all of it", ask(**POLICY)),
    Scenario("change_policy", "back to the default", after(policed, rate=None, ttl=None)),
    Scenario("change_policy", "to what is none", ask(backoff={"first": "soon"}), 400),
    Scenario("crons", "a page", lambda w: World.recur(w) and {"limit": 1, "cursor": w.cron[:-1]}),
    Scenario("cron", "plain", World.recur),
    Scenario("cron", "that is not there", lambda w: {"name": w.cron}, 404),
    Scenario("put_cron", "a new one", lambda w: {
        "name": w.cron, "queue": w.queue, "body": 1, "schedule": "@hourly", **RECURRING
    }, 201),
    Scenario("put_cron", "the same again", lambda w: {
        **w.recur(), "queue": w.queue, "body": 1, "schedule": "@every 5m"
    }),
    Scenario("put_cron", "without a schedule", lambda w: {"name": w.cron, "queue": w.queue, "body": 1}, 400),
    Scenario("put_cron", "with no schedule", lambda w: {
        "name": w.cron, "queue": w.queue, "body": 1, "schedule": "now and then"
    }, 400),
    Scenario("run_cron", "now", World.recur, 201),
    Scenario("run_cron", "one that is not there", lambda w: {"name": w.cron}, 404),
    Scenario("run_cron", "into a full queue", lambda w: full(w) and w.recur(), 429),
    Scenario("pause_cron", "one", World.recur),
    Scenario("pause_cron", "one that is not there", lambda w: {"name": w.cron}, 404),
    Scenario("resume_cron", "one that is paused", paused),
    Scenario("resume_cron", "one that is not there", lambda w: {"name": w.cron}, 404),
    Scenario("delete_cron", "one", World.recur, 204),
    Scenario("delete_cron", "one that is not there", lambda w: {"name": w.cron}, 404),
    Scenario("purge", "jobs", with_a_job, 204),
    Scenario("purge", "and forget", after(World.push, forget=True), 204),
    Scenario("purge", "nothing", a_queue, 204),
    Scenario("info", "of a queue", with_a_job),
    Scenario("queues", "all", lambda w: with_a_job(w) and {}),
    Scenario("queues", "of a list", lambda w: {"queues": f"{with_a_job(w)['queue'][:-1]}*", "busy": True}),
    Scenario("queues", "more than fit", lambda w: with_a_job(w) and {"limit": 1001}, 400),
    Scenario("size", "of a queue", with_a_job),
    Scenario("size", "and its jobs", after(World.push, with_desc=True)),
    Scenario("peek", "at jobs", after(two_jobs, count=5)),
    Scenario("peek", "at nothing", a_queue),
    Scenario("peek", "at too many", ask(count=0), 400),
    Scenario("started", "by default", a_queue),
    Scenario("started", "a stopped one", after(stopped)),
    Scenario("control", "stop", ask(status="stop")),
    Scenario("control", "start", ask(status="start")),
    Scenario("control", "what is none", ask(status="run"), 400),
    Scenario("start", "a stopped queue", after(stopped)),
    Scenario("stop", "a queue", a_queue),
    Scenario("server", "as it is", lambda w: {}),
    Scenario("whoami", "of anybody", lambda w: {}),
    Scenario("all_stats", "of a queue among others", lambda w: with_a_job(w) and {}),
    Scenario("all_stats", "of a list", lambda w: {"queues": f"{with_a_job(w)['queue'][:-1]}*", "limit": 3}),
    Scenario("all_stats", "of a list that is none", lambda w: {"queues": "!a"}, 400),
    Scenario("stats", "of a queue", with_a_job),
    Scenario("history", "of a queue", lambda w: {**with_a_job(w), "over": "5m"}),
    Scenario("history", "of no period", lambda w: {**with_a_job(w), "over": "2h"}, 400),
    Scenario("stats", "of a name that is none", lambda w: {"queue": "-x"}, 400),
    Scenario("livez", "a server that runs", lambda _: {}),
    Scenario("readyz", "a server that can work", lambda _: {}),
    Scenario("readyz", "whatever the disk", lambda _: {"exclude": "disk-full"}),
    Scenario("register", "a worker", a_queue, 201, worker=True),
    Scenario("register", "nobody", a_queue, 400),
    Scenario("unregister", "a worker", after(with_worker), 204, worker=True),
    Scenario("unregister", "nobody", a_queue, 400),
    Scenario("workers", "all", with_worker),
    Scenario("workers", "one", lambda w: with_worker(w) | {"worker_id": w.worker}),
    Scenario("workers", "of a queue", lambda w: with_worker(w) | {"queue_name": w.queue}),
    Scenario("workers", "and all about them", lambda w: reported(w) | {"with_desc": True}),
    Scenario("workers", "one that is not there", lambda w: {"worker_id": w.worker}, 404),
    Scenario("report", "what it does", lambda w: {"queues": [w.queue], "doing": [1]}, worker=True),
    Scenario("report", "nobody", lambda w: {}, 400),
    Scenario("tell_worker", "to be quiet", the_worker(status="quiet")),
    Scenario("tell_worker", "none", lambda w: {"worker_id": w.worker, "status": "stop"}, 404),
    Scenario("tell_worker", "what is none", the_worker(status="run"), 400),
    Scenario("leave", "a worker", reported, 204, worker=True),
    Scenario("leave", "nobody", lambda w: {}, 400),
    Scenario("add", "a job", ask(value={"a": 1})),
    Scenario("add", "no job", a_queue, 400),
    Scenario("take", "a job", with_a_job),
    Scenario("take", "nothing", a_queue, 404),
    Scenario("get", "a job", with_a_job),
    Scenario("get", "nothing", a_queue, 404),
    Scenario("del", "a job", lambda w: {"queue": w.queue, "key": f"{w.queue}:{w.push()}"}),
    Scenario("del", "a key of another queue", ask(key="other:1"), 400),
    Scenario("del", "no job", lambda w: {"queue": w.queue, "key": f"{w.queue}:{no_job(w)['id']}"}, 404),
)  # fmt: skip
"""In the order of the page of verbs; `status` is what the HTTP route answers."""


def no_token(holder: Fields) -> Fields:
    return {name: holder[name] for name in ("queue", "id")}


def deleted(world: World) -> Fields:
    """A leased job that was deleted meanwhile."""
    was = world.lease()
    world.done("delete", **no_token(was))
    return was
