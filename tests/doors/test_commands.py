"""One set of scenarios through every door that knows the commands, the clients in Python among them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from presque import AsyncClient, Client
from presque.client import ClientError, calls
from presque.client.call import Call
from presque.client.json_values import encoded
from presque.verbs import COMMANDS
from tests import rig
from tests.doors.sockets import heard, speaking

Say = Callable[..., Awaitable[Any]]
DOORS = ("rest", "queue", "array", "ws", "client", "async client")


@pytest.fixture(params=DOORS)
async def say(request: pytest.FixtureRequest, server: rig.Server) -> AsyncIterator[Say]:
    """Carries out a command through one of the doors, and returns its answer."""
    if request.param == "client":
        with Client(server.url) as client:

            async def perform(call: Call[Any]) -> Any:
                return await asyncio.to_thread(client.perform, call)

            yield by_client(perform)
        return
    if request.param == "async client":
        async with AsyncClient(server.url) as async_client:
            yield by_client(async_client.perform)
        return
    if request.param == "ws":
        async with speaking(server) as on:

            async def by_socket(cmd: str, **fields: Any) -> Any:
                if cmd == "lease":  # has a meaning of its own there: see below
                    return server.ask("POST", "/queue", json.dumps({"cmd": cmd, **fields})).json
                await on.send(json.dumps({"cmd": cmd, "ref": 1, **fields}))
                answer = await heard(on)
                assert answer.pop("ref") == 1
                return answer

            yield by_socket
        return

    async def by_http(cmd: str, **fields: Any) -> Any:
        if request.param == "rest":
            return rest(server, cmd, **fields)
        command = {"cmd": cmd, **fields}
        body = json.dumps([command] if request.param == "array" else command)
        answer = (await asyncio.to_thread(server.ask, "POST", "/queue", body)).json
        return answer[0] if request.param == "array" else answer

    yield by_http


def rest(server: rig.Server, cmd: str, queue: str, **fields: Any) -> Any:
    """The route that a command stands for."""
    if cmd == "push":
        job = fields.pop("job")
        query = "&".join(f"{name}={value}" for name, value in fields.items())
        return server.ask("POST", f"/q/{queue}?{query}", json.dumps(job)).json
    if cmd == "fetch":
        answer = server.ask("GET", f"/q/{queue}")
        if answer.status != 200:
            return answer.json
        return {
            "queue": answer.headers["presque-queue"],
            "id": answer.headers["presque-job-id"],
            "body": answer.json,
        }
    if cmd == "lease":
        answer = server.ask("POST", f"/q/{queue}/lease", json.dumps(fields))
        return answer.json if answer.status == 200 else {"jobs": []}
    if cmd in ("ack", "fail", "release", "extend"):
        job = fields.pop("id")
        return server.ask("POST", f"/j/{queue}/{job}/{cmd}", json.dumps(fields)).json
    if cmd == "peek":
        answer = server.ask("GET", f"/status/{queue}?with_desc=1").json
        return {"queue": queue, "ready": answer["size"], "jobs": [json.loads(one) for one in answer["jobs"]]}
    if cmd == "stats":
        return server.ask("GET", f"/stats/{queue}").json
    if cmd in ("start", "stop"):
        return server.ask("POST", f"/control/{queue}", json.dumps({"status": cmd})).json
    if cmd == "purge":
        return server.ask("DELETE", f"/q/{queue}").status
    if cmd == "retry":
        return server.ask("POST", f"/j/{queue}/{fields['id']}/retry").json
    assert cmd == "delete"
    return server.ask("DELETE", f"/j/{queue}/{fields['id']}").status


def by_client(perform: Callable[[Call[Any]], Awaitable[Any]]) -> Say:
    """The methods of a client; what they return or raise, in the shape of the answers of the other doors."""

    async def say(cmd: str, queue: str, **fields: Any) -> Any:
        try:
            return shaped(cmd, queue, await perform(call_of(cmd, queue, fields)))
        except ClientError as error:
            return {"error": error.text, "code": error.code}

    return say


def call_of(cmd: str, queue: str, fields: dict[str, Any]) -> Call[Any]:
    """What the method of a client for this command sends."""
    if cmd == "push":
        job = encoded(fields.pop("job")).encode()
        return calls.pushing.push(queue, job, fields)  # type: ignore[arg-type]
    if cmd == "fetch":
        return calls.taking.fetch(queue, None, None)
    if cmd == "lease":
        return calls.taking.lease(queue, **fields)
    if cmd in ("ack", "fail", "release", "extend"):
        holder = {"queue": queue, "id": fields.pop("id"), "lease": fields.pop("lease")}
        return calls.taking.settle_one(cmd, holder, fields, None)
    if cmd in ("start", "stop"):
        return calls.queues.control(queue, cmd)
    of_one_job: dict[str, Callable[[str, str], Call[Any]]] = {
        "retry": calls.jobs.retry,
        "delete": calls.jobs.delete,
    }
    if cmd in of_one_job:
        return of_one_job[cmd](queue, fields["id"])
    of_queue: dict[str, Callable[[str], Call[Any]]]
    of_queue = {"peek": calls.queues.peek, "stats": calls.queues.stats, "purge": calls.queues.purge}
    return of_queue[cmd](queue)


def shaped(cmd: str, queue: str, found: Any) -> Any:
    """What a client returned, as the other doors answer."""
    if cmd == "push":
        return {"id": found, "queue": queue}
    if cmd == "fetch":
        if found is None:
            return {"error": "no job"}
        return {"queue": found.queue, "id": found.id, "body": found.value}
    if cmd == "lease":
        return {
            "jobs": [{"id": job.id, "lease": job.lease, "lease_until": job.lease_until} for job in found.jobs]
        }
    if cmd == "peek":
        return {"jobs": [json.loads(text) for text in found]}
    return found


async def test_a_pushed_job_is_fetched_as_it_came(say: Say, queue_name: str) -> None:
    pushed = await say("push", queue=queue_name, job={"n": 12345678901234567890})
    assert pushed == {"id": "1", "queue": queue_name}
    fetched = await say("fetch", queue=queue_name)
    assert fetched == {"queue": queue_name, "id": "1", "body": {"n": 12345678901234567890}}
    assert (await say("fetch", queue=queue_name))["error"] == "no job"


async def test_the_highest_priority_comes_first(say: Say, queue_name: str) -> None:
    await say("push", queue=queue_name, job="low", priority=1)
    await say("push", queue=queue_name, job="high", priority=9)
    assert (await say("peek", queue=queue_name))["jobs"] == ["high", "low"]
    assert (await say("fetch", queue=queue_name))["body"] == "high"


async def test_a_leased_job_is_acked_once_and_is_then_gone(say: Say, queue_name: str) -> None:
    await say("push", queue=queue_name, job=1)
    [job] = (await say("lease", queue=queue_name, count=5, seconds=30))["jobs"]
    for _ in range(2):
        told = await say("ack", queue=queue_name, id=job["id"], lease=job["lease"])
        assert (told["status"], told["state"]) == (200, "done")
    assert (await say("stats", queue=queue_name))["processed"] == 1


async def test_a_failed_job_that_is_not_retried_is_dead_until_somebody_retries_it(
    say: Say, queue_name: str
) -> None:
    await say("push", queue=queue_name, job=1)
    [job] = (await say("lease", queue=queue_name))["jobs"]
    told = await say("fail", queue=queue_name, id="1", lease=job["lease"], error="no", retry=False)
    assert told["state"] == "dead"
    assert (await say("retry", queue=queue_name, id="1"))["state"] == "ready"
    assert (await say("stats", queue=queue_name))["ready"] == 1


async def test_a_released_job_is_ready_and_an_extended_one_is_not(say: Say, queue_name: str) -> None:
    await say("push", queue=queue_name, job=1)
    [job] = (await say("lease", queue=queue_name))["jobs"]
    told = await say("extend", queue=queue_name, id="1", lease=job["lease"], seconds=100)
    assert told["lease_until"] > job["lease_until"]
    assert (await say("release", queue=queue_name, id="1", lease=job["lease"]))["state"] == "ready"


async def test_a_stopped_queue_hands_out_nothing(say: Say, queue_name: str) -> None:
    await say("push", queue=queue_name, job=1)
    await say("stop", queue=queue_name)
    assert (await say("fetch", queue=queue_name))["error"] == "queue is closed"
    await say("start", queue=queue_name)
    assert (await say("fetch", queue=queue_name))["body"] == 1


async def test_delete_takes_a_job_and_purge_takes_all(say: Say, queue_name: str) -> None:
    for number in range(3):
        await say("push", queue=queue_name, job=number)
    await say("delete", queue=queue_name, id="1")
    assert (await say("peek", queue=queue_name))["jobs"] == [1, 2]
    await say("purge", queue=queue_name)
    assert (await say("stats", queue=queue_name))["ready"] == 0


async def test_what_is_wrong_is_said_in_the_same_words_everywhere(say: Say, queue_name: str) -> None:
    assert "`priority` should be" in (await say("push", queue=queue_name, job=1, priority=10))["error"]
    assert "is not a valid queue name" in (await say("stats", queue="-x"))["error"]
    told = await say("ack", queue=queue_name, id="9", lease="none")
    assert told["error"] == "there is no such job in this queue"


def test_restmqs_own_words_are_understood(server: rig.Server, queue_name: str) -> None:
    def said(**command: Any) -> Any:
        return server.ask("POST", "/queue", json.dumps({"queue": queue_name, **command})).json

    assert said(cmd="add", value="abacab") == {
        "queue": queue_name, "key": f"{queue_name}:1", "value": "abacab",
    }  # fmt: skip
    assert said(cmd="get")["value"] == "abacab"
    assert said(cmd="take") == {"queue": queue_name, "key": f"{queue_name}:1", "value": "abacab"}
    assert said(cmd="add", value=None)["key"] == f"{queue_name}:2"
    assert said(cmd="del", key=f"{queue_name}:2")["deleted"] is True
    assert said(cmd="take")["error"] == "no job"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_FIELDS = sorted({name for command in COMMANDS.values() for name in command.fields} - {"wait"})
_COMMAND = st.builds(
    lambda cmd, fields: {"cmd": cmd, "queue": "fuzz", **fields},
    st.sampled_from(sorted(COMMANDS)) | st.text(max_size=8),
    st.dictionaries(st.sampled_from(_FIELDS), _JSON, max_size=5),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=_COMMAND | st.lists(_COMMAND, max_size=4) | _JSON)
def test_no_command_is_answered_with_a_fault_of_the_server(server: rig.Server, body: Any) -> None:
    answer = server.ask("POST", "/queue", json.dumps(body))
    assert answer.status < 500, answer
    answers = answer.json if isinstance(answer.json, list) else [answer.json]
    assert not [one for one in answers if one.get("code") in ("internal", "store-error")]
