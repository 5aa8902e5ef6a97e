"""Many jobs at once: search, failures by their kind, bulk tasks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from presque import Client
from presque.client import ClientError
from presque.client.answers import Task
from tests import rig


@pytest.fixture
def client(server: rig.Server) -> Iterator[Client]:
    with Client(server.url) as found:
        yield found


def die(client: Client, queue: str, jobs: list[Any], error: str = "no") -> list[str]:
    """Push jobs that die at once, each with this error, in which `{}` stands for the job. Their ids."""
    ids = client.push_many(queue, jobs, attempts=1)
    held = client.lease(queue, 1000, seconds=600)
    said = [
        {"queue": queue, "id": one.id, "lease": one.lease, "error": error.replace("{}", str(one.value))}
        for one in held
    ]
    client.settle({"fail": said})
    return ids


def ended(client: Client, task: Task) -> Task:
    """The task, once it has ended."""
    found: Task = rig.eventually(lambda: (now := client.task(task["id"]))["ended_at"] and now)
    return found


def texts(client: Client, queue: str, state: str) -> list[Any]:
    """The jobs of a queue in one state, by their value."""
    found = client.search(queue, state=state, limit=500)  # type: ignore[arg-type]
    return sorted(one["body"] for one in found["jobs"])


# --- search


def test_a_search_finds_what_a_body_or_an_error_contains(client: Client, queue_name: str) -> None:
    die(client, queue_name, ["ana", "ben"], "no reply from {}")
    client.push(queue_name, {"to": "ana", "n": [1]})
    client.push(queue_name, "zoe", delay=60, group="late", priority=9)

    def found(**only: Any) -> list[Any]:
        return [one["body"] for one in client.search(queue_name, **only)["jobs"]]

    assert found(find="ana") == [{"to": "ana", "n": [1]}, "ana"]
    assert found(find="from ben") == ["ben"]
    assert found(text="from ben") == []
    assert found(error="from ana") == ["ana"]
    assert found(text='"n":[1]') == [{"to": "ana", "n": [1]}]
    assert found(state="scheduled") == found(group="late") == found(priority=9) == ["zoe"]
    assert found(like="no reply from ana") == ["ana"]
    assert found(older=60) == []
    assert len(found(newer=60)) == 4
    assert found(worker="nobody") == []


def test_a_job_is_found_by_its_id(client: Client, queue_name: str) -> None:
    one, other = f"{queue_name}-one", f"{queue_name}-other"
    client.push_many(one, ["a", "b", "2"])
    client.push_many(other, ["c", "d"])

    def found(text: str, queues: str, **only: Any) -> list[tuple[str, str]]:
        return [(job["queue"], job["id"]) for job in client.search(queues, find=text, **only)["jobs"]]

    both = f"{queue_name}-*"
    assert found("2", both) == [(one, "2"), (other, "2"), (one, "3")]  # and the text that is in a body
    assert found(f"{other}/1", both) == [(other, "1")]
    assert found(f"{other}/1", one) == []
    assert found(f"{other}/9", both) == []
    assert found("2", both, state="dead") == []
    assert found("-x/1", both) == []


def test_a_search_goes_on_where_it_stopped_and_leaves_nothing_out(client: Client, queue_name: str) -> None:
    queues = [f"{queue_name}-{letter}" for letter in "abc"]
    for queue in queues:
        client.push_many(queue, list(range(5)))
        client.push_many(queue, list(range(5, 8)), delay=60)
    found: list[Any] = []
    cursor = None
    while True:
        page = client.search(f"{queue_name}-*", limit=3, cursor=cursor)
        found += [(one["queue"], one["body"]) for one in page["jobs"]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert sorted(found) == [(queue, number) for queue in queues for number in range(8)]


def test_a_search_in_groups_and_priorities_finds_each_job_once(client: Client, queue_name: str) -> None:
    for number in range(20):
        client.push(queue_name, number, priority=number % 9 + 1, group=f"g{number % 3}")
    found: list[Any] = []
    cursor = None
    while True:
        page = client.search(queue_name, state="ready", limit=7, cursor=cursor)
        found += [one["body"] for one in page["jobs"]]
        cursor = page["cursor"]
        if cursor is None:
            break
    assert sorted(found) == list(range(20))


# --- failures


def test_failures_are_grouped_by_the_first_line_of_their_error_without_numbers(
    client: Client, queue_name: str
) -> None:
    one, other = f"{queue_name}-one", f"{queue_name}-other"
    die(client, one, [10, 200], "timeout after {} s\nat line {}")
    die(client, other, [3], "timeout after {} s")
    die(client, other, ["x"], "no such job 1b4e28ba-2fa1-11d2-883f-0016d3cca427, tag deadbeef1")
    [timeouts, missing] = client.failures(f"{queue_name}-*")["failures"]
    assert (timeouts["like"], timeouts["count"]) == ("timeout after # s", 3)
    assert timeouts["queues"] == {one: 2, other: 1}
    assert timeouts["first_at"] <= timeouts["last_at"]
    assert timeouts["error"] == "timeout after 3 s"
    assert client.job(**timeouts["sample"])["body"] == 3
    assert missing["like"] == "no such job #, tag #"


def test_jobs_that_will_be_tried_again_have_failures_too(client: Client, queue_name: str) -> None:
    client.push(queue_name, 1)
    [job] = client.lease(queue_name)
    client.fail(job, "try 1 failed", retry_in=60)
    assert client.failures(queue_name)["failures"] == []
    [kind] = client.failures(queue_name, state="scheduled")["failures"]
    assert (kind["like"], kind["count"]) == ("try # failed", 1)


def test_a_long_error_is_cut_between_two_characters(client: Client, queue_name: str) -> None:
    die(client, queue_name, [1], "é" * 150)
    [kind] = client.failures(queue_name)["failures"]
    assert kind["like"] == "é" * 100
    assert client.dry_run("retry", queue_name, like=kind["like"])["matched"] == 1


# --- tasks


def test_a_task_retries_what_matches_and_nothing_else(client: Client, queue_name: str) -> None:
    die(client, queue_name, list(range(700)), "timeout after {} s")
    die(client, queue_name, ["x"], "no such host")
    task = ended(client, client.new_task("retry", queue_name, like="timeout after # s"))
    assert (task["status"], task["looked"], task["matched"], task["done"]) == ("done", 701, 700, 700)
    assert (task["total"], task["refused"], task["problems"]) == (701, 0, [])
    stats = client.stats(queue_name)
    assert (stats["ready"], stats["dead"]) == (700, 1)


def test_a_task_goes_through_all_queues_of_a_list_and_no_other(client: Client, queue_name: str) -> None:
    for letter in "abc":
        die(client, f"{queue_name}-{letter}", [letter])
    task = ended(client, client.new_task("retry", f"{queue_name}-*,!*-b"))
    assert task["done"] == 2
    assert [client.stats(f"{queue_name}-{letter}")["ready"] for letter in "abc"] == [1, 0, 1]


@pytest.mark.parametrize("state", ["ready", "scheduled", "dead", "done", "any"])
def test_a_task_deletes_jobs_in_a_state(client: Client, queue_name: str, state: str) -> None:
    q = queue_name
    client.push_many(q, ["done 1", "done 2"], keep=600)
    for job in client.lease(q, 2):
        client.ack(job)
    die(client, q, ["dead 1", "dead 2"])
    client.push_many(q, ["ready 1", "ready 2", "ready 3"])
    client.push_many(q, ["scheduled 1", "scheduled 2"], delay=600)
    task = ended(client, client.new_task("delete", q, state=state, text="1"))  # type: ignore[arg-type]
    assert task["done"] == (4 if state == "any" else 1)
    for each in ("ready", "scheduled", "dead", "done"):
        gone = state in (each, "any")
        assert (f"{each} 1" in texts(client, q, each)) is not gone
        assert f"{each} 2" in texts(client, q, each)
    assert [job.value for job in client.lease(q, 10)] == [
        one for one in ("ready 1", "ready 2", "ready 3") if state not in ("ready", "any") or one != "ready 1"
    ]


def test_a_deleted_leased_job_is_cancelled_and_not_tried_again(client: Client, queue_name: str) -> None:
    client.push(queue_name, 1)
    [held] = client.lease(queue_name)
    assert ended(client, client.new_task("delete", queue_name, state="leased"))["done"] == 1
    assert client.extend(held).get("cancel") is True
    assert client.fail(held, "no")["state"] == "deleted"


def test_a_task_deletes_ready_jobs_of_groups_and_priorities(client: Client, queue_name: str) -> None:
    for number in range(30):
        client.push(
            queue_name, number, priority=number % 9 + 1, group=f"g{number % 3}" if number % 2 else None
        )
    task = ended(client, client.new_task("delete", queue_name, state="ready", group="g1"))
    expected = {number for number in range(30) if not (number % 2 and number % 3 == 1)}
    assert task["done"] == 30 - len(expected)
    assert {job.value for job in client.lease(queue_name, 100)} == expected


def test_a_task_keeps_to_its_rate_and_its_limit(client: Client, queue_name: str) -> None:
    die(client, queue_name, list(range(50)))
    task = ended(client, client.new_task("retry", queue_name, rate=20, limit=7))
    assert (task["status"], task["done"]) == ("done", 7)
    assert texts(client, queue_name, "ready") == list(range(7))  # those that died first


def test_jobs_that_fail_again_are_not_retried_again(client: Client, queue_name: str) -> None:
    die(client, queue_name, [1, 2, 3])
    task = client.new_task("retry", queue_name, rate=5)
    again = Counter[Any]()
    while not client.task(task["id"])["ended_at"]:
        for job in client.lease(queue_name, 10):
            again[job.value] += 1
            client.fail(job, "no", retry=False)
    assert max(again.values(), default=0) == 1
    assert client.task(task["id"])["done"] == 3


def test_a_task_is_paused_resumed_and_cancelled(client: Client, queue_name: str) -> None:
    die(client, queue_name, list(range(100)))
    task = client.new_task("retry", queue_name, rate=1)
    rig.eventually(lambda: client.task(task["id"])["done"] > 0)
    assert client.pause_task(task["id"])["status"] == "paused"
    rig.eventually(lambda: client.stats(queue_name)["ready"] == client.task(task["id"])["done"])
    assert client.resume_task(task["id"])["status"] == "running"
    before = client.task(task["id"])["done"]
    rig.eventually(lambda: client.task(task["id"])["done"] > before)
    client.cancel_task(task["id"])
    found = ended(client, task)
    assert found["status"] == "cancelled"
    assert client.stats(queue_name)["ready"] == found["done"] < 100
    assert client.cancel_task(task["id"])["status"] == "cancelled"
    assert client.resume_task(task["id"])["status"] == "cancelled"


@pytest.mark.parametrize("limited", [False, True])
def test_a_move_keeps_all_that_is_known_of_a_job(client: Client, queue_name: str, limited: bool) -> None:
    q, other = queue_name, f"{queue_name}-other"
    if limited:
        client.change_policy(other, max_length=100)
    client.push(q, {"n": [1.50, None]}, priority=9, attempts=7, keep=600, group="g", ttl=900, uniq="u")
    client.push(q, "later", delay=600, priority=2, uniq="v", uniq_until="done")
    client.push(q, "kept", keep=600)
    [job] = [one for one in client.lease(q, 2) if one.value == "kept"]
    client.ack(job, {"fine": True})
    die(client, q, ["died"])
    before = {json.dumps(one["body"]): one for one in client.search(q)["jobs"] if one["state"] != "leased"}
    assert len(before) == 3

    task = ended(client, client.new_task("move", q, to=other, state="any"))

    assert (task["status"], task["done"], task["refused"], task["to"]) == ("done", 3, 0, other)
    after = {json.dumps(one["body"]): one for one in client.search(other)["jobs"]}
    assert after.keys() == before.keys()
    for body, was in before.items():
        now = after[body]
        same = was.keys() - {"queue", "id", "run_at", "expires_at"}
        assert {name: was[name] for name in same} == {name: now.get(name) for name in same}  # type: ignore[literal-required]
        assert (was["run_at"] is None) == (now["run_at"] is None)
    assert [one["state"] for one in client.search(q)["jobs"]] == ["leased"]


def test_ready_jobs_are_moved_in_their_order_and_taken_there(client: Client, queue_name: str) -> None:
    q, other = queue_name, f"{queue_name}-other"
    client.push_many(q, list(range(1000)))
    client.push(q, "first", priority=9, traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    client.push(other, "there before")
    client.push(q, "x", group="acme")
    task = ended(client, client.new_task("move", f"{q},{other}", to=other, state="ready"))
    assert (task["done"], task["problems"]) == (1002, [])
    assert client.stats(q)["ready"] == 0
    taken = []
    while jobs := client.lease(other, 1000):
        taken += [job.value for job in jobs]
        client.settle({"ack": [{"queue": other, "id": job.id, "lease": job.lease} for job in jobs]})
    assert taken[0] == "first"
    assert [one for one in taken if isinstance(one, int)] == list(range(1000))
    assert len(taken) == 1003


def test_a_move_leaves_a_job_whose_uniq_key_waits_on_the_other_queue(client: Client, queue_name: str) -> None:
    q, other = queue_name, f"{queue_name}-other"
    client.push(q, "a", uniq="one")
    client.push(q, "b", uniq="two")
    client.push(other, "c", uniq="one")
    task = ended(client, client.new_task("move", q, to=other, state="ready"))
    assert (task["matched"], task["done"], task["refused"]) == (2, 1, 1)
    assert texts(client, q, "ready") == ["a"]
    with pytest.raises(ClientError, match="job already exists"):
        client.push(other, "d", uniq="two")
    assert client.push(q, "d", uniq="two")


def test_a_move_waits_while_the_other_queue_is_full(client: Client, queue_name: str) -> None:
    q, other = queue_name, f"{queue_name}-other"
    client.change_policy(other, max_length=3)
    client.push_many(q, [1, 2, 3, 4, 5])
    task = client.new_task("move", q, to=other, state="ready")
    rig.eventually(lambda: client.task(task["id"])["waits"])
    assert client.task(task["id"])["done"] == client.stats(other)["ready"] == 3
    for job in client.lease(other, 3):
        client.ack(job)
    assert ended(client, task)["done"] == 5
    assert client.stats(other)["ready"] == 2


@pytest.mark.parametrize("options", [{"act": "move"}, {"act": "retry", "to": "x"}])
def test_a_queue_to_move_to_goes_with_a_move(
    server: rig.Server, queue_name: str, options: dict[str, str]
) -> None:
    asked = {"queues": queue_name, "state": "dead", **options}
    answer = server.ask("POST", "/tasks", json.dumps(asked))
    assert answer.status == 400
    assert answer.json["error"].startswith("`to` says to which queue")


def test_a_dry_run_counts_and_changes_nothing(client: Client, queue_name: str) -> None:
    die(client, queue_name, list(range(600)))
    found = client.dry_run("delete", queue_name, state="any")
    assert (found["matched"], found["complete"], len(found["sample"])) == (600, True, 10)
    assert found["looked"] == {"jobs": 600, "queues": 1}
    assert client.stats(queue_name)["dead"] == 600


def test_a_queue_that_cannot_be_read_is_left_out_and_told(store: rig.Store, queue_name: str) -> None:
    with (
        rig.server("--redis", store.url, PRESQUE_NAMESPACE=queue_name) as server,
        Client(server.url) as client,
        store.client() as inside,
    ):
        for letter in "abc":
            die(client, letter, [letter])
        inside.delete(f"{queue_name}:{{b}}:uniq")
        inside.set(f"{queue_name}:{{b}}:uniq", "wrong")
        task = ended(client, client.new_task("retry", "*"))
        assert (task["status"], task["done"]) == ("done", 2)
        [problem] = task["problems"]
        assert problem.startswith("b: ")
        assert client.search("*")["spoilt"] == ["b"]


def test_a_task_without_a_state_to_delete_begins_not(client: Client, queue_name: str) -> None:
    with pytest.raises(ClientError, match="`state` is missing"):
        client.new_task("delete", queue_name)


def test_the_address_of_a_new_task_is_told(server: rig.Server, queue_name: str) -> None:
    answer = server.ask("POST", "/tasks", json.dumps({"act": "retry", "queues": queue_name}))
    assert answer.status == 201
    assert server.ask("GET", answer.headers["location"]).json["id"] == answer.json["id"]
