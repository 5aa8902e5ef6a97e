"""A reply that is lost on its way from the store: the client is told, and nothing is done twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests import rig
from tests.doors.sockets import heard, silent, speaking
from tests.faults.proxy import Fate, Proxy, proxy


@dataclass
class Setting:
    """A server whose calls to the store go through a proxy."""

    server: rig.Server
    proxy: Proxy
    store: rig.Store

    def ready(self, queue: str) -> int:
        """How many jobs the store holds, asked past the proxy."""
        with self.store.client() as client:
            return int(client.hlen(f"presque:{{{queue}}}:jobs"))

    def resumed(self) -> None:
        """Wait until presque has found its store again."""
        rig.eventually(lambda: self.server.ask("GET", "/stats/").status == 200)

    def push_caught(self, queue: str, fate: Fate, times: int = 1) -> rig.Answer:
        self.server.ask("POST", f"/q/{queue}", "0")
        self.server.ask("GET", f"/q/{queue}")
        self.proxy.catch(b"presque_2_push", fate, times)
        return self.server.ask("POST", f"/q/{queue}", "1")


@pytest.fixture(scope="module")
def setting() -> Iterator[Setting]:
    with (
        rig.store("valkey") as store,
        proxy(store.socket) as between,
        rig.server("--redis", f"redis://127.0.0.1:{between.port}") as server,
    ):
        yield Setting(server, between, store)


@pytest.mark.parametrize("fate", ["cut", "drop"])
def test_a_push_whose_reply_is_lost_answers_503_and_is_not_repeated(
    setting: Setting, queue_name: str, fate: Fate
) -> None:
    answer = setting.push_caught(queue_name, fate)

    assert answer.status == 503
    assert "whether the request took effect is unknown" in answer.json["error"]
    assert answer.headers["retry-after"] == "1"
    setting.resumed()
    assert setting.ready(queue_name) == 1


@pytest.mark.parametrize("fate", ["blackhole", "reset"])
def test_a_push_that_never_reached_the_store_answers_503_and_stores_nothing(
    setting: Setting, queue_name: str, fate: Fate
) -> None:
    assert setting.push_caught(queue_name, fate).status == 503

    setting.resumed()
    assert setting.ready(queue_name) == 0


def test_a_call_sent_twice_would_be_noticed(setting: Setting, queue_name: str) -> None:
    """The control of the tests above: with a repeated call they count two jobs."""
    setting.push_caught(queue_name, "cut", times=2)

    setting.resumed()
    assert setting.ready(queue_name) == 2


@pytest.mark.parametrize("wait", ["", "?wait=5"])
@pytest.mark.parametrize("fate", ["cut", "drop"])
def test_a_fetch_whose_reply_is_lost_answers_503_and_is_not_repeated(
    setting: Setting, queue_name: str, fate: Fate, wait: str
) -> None:
    for number in range(3):
        setting.server.ask("POST", f"/q/{queue_name}", str(number))
    setting.proxy.catch(b"presque_2_fetch", fate)

    answer = setting.server.ask("GET", f"/q/{queue_name}{wait}")

    assert answer.status == 503
    assert "unknown" in answer.json["error"]
    setting.resumed()
    assert setting.ready(queue_name) == 2, "one job was taken, and the client knows that it may have been"
    assert setting.server.ask("GET", f"/q/{queue_name}").body == b"1"


def test_who_waits_is_told_when_the_reply_that_may_hold_its_job_is_lost(
    setting: Setting, queue_name: str
) -> None:
    caught = setting.proxy.caught
    setting.proxy.catch(b"presque_2_fetch", "pass")  # its first look, before it waits
    setting.proxy.catch(b"presque_2_fetch", "cut")
    waiting = setting.server.send("GET", f"/q/{queue_name}?wait=60")
    rig.eventually(lambda: setting.proxy.caught == caught + 1)
    setting.server.ask("POST", f"/q/{queue_name}", "1")

    assert waiting.answer().status == 503
    setting.resumed()
    assert setting.ready(queue_name) == 0


def test_a_batch_whose_reply_is_lost_is_all_there_once(setting: Setting, queue_name: str) -> None:
    setting.server.ask("POST", f"/qb/{queue_name}", '{"jobs": [0]}')
    setting.server.ask("GET", f"/q/{queue_name}")
    setting.proxy.catch(b"presque_2_push", "cut")

    assert setting.server.ask("POST", f"/qb/{queue_name}", '{"jobs": [1, 2, 3]}').status == 503

    setting.resumed()
    assert setting.ready(queue_name) == 3


def test_a_connection_that_falls_silent_while_it_is_made_is_given_up(setting: Setting) -> None:
    setting.server.ask("POST", "/q/silent", "1")
    caught = setting.proxy.caught
    # Both traps are set before: the next connection may have been made before the 503 is here.
    setting.proxy.catch(b"presque_2_push", "cut")
    setting.proxy.catch(b"LIBRARYNAME", "blackhole")
    assert setting.server.ask("POST", "/q/silent", "1").status == 503
    rig.eventually(lambda: setting.proxy.caught == caught + 2)

    setting.resumed()


def test_lost_replies_one_after_the_other_double_nothing(setting: Setting, queue_name: str) -> None:
    unclear = acknowledged = 0
    caught = setting.proxy.caught
    for number in range(40):
        if number % 2:
            setting.proxy.catch(b"presque_2_push", "cut")
        status = setting.server.ask("POST", f"/q/{queue_name}", str(number)).status
        acknowledged += status == 201
        unclear += status == 503
        setting.resumed()

    found = []
    while (answer := setting.server.ask("GET", f"/q/{queue_name}")).status == 200:
        found.append(int(answer.body))
    assert setting.proxy.caught - caught == unclear == 20
    assert acknowledged == 20
    assert found == list(range(40)), "each of them reached the store exactly once"


# --- leases: what is repeated has no second effect --------------------------------------------------


def leased(setting: Setting, queue: str) -> dict[str, str]:
    """Push a job and lease it. Returns the job as it was handed out."""
    setting.server.ask("POST", f"/q/{queue}", "1")
    [job] = setting.server.ask("POST", f"/q/{queue}/lease").json["jobs"]
    return dict(job)


@pytest.mark.parametrize("fate", ["cut", "drop"])
def test_a_lease_whose_reply_is_lost_is_asked_for_again_and_brings_the_same_jobs(
    setting: Setting, queue_name: str, fate: Fate
) -> None:
    for number in range(4):
        setting.server.ask("POST", f"/q/{queue_name}", str(number))
    setting.proxy.catch(b"presque_2_lease", fate)
    path = f"/q/{queue_name}/lease?count=2&attempt_id=mine"

    assert setting.server.ask("POST", path).status == 503
    setting.resumed()
    again = setting.server.ask("POST", path).json["jobs"]

    assert sorted(job["body"] for job in again) == [0, 1]
    assert [job["attempt"] for job in again] == [1, 1]
    assert setting.server.ask("GET", f"/stats/{queue_name}").json["leased"] == 2


@pytest.mark.parametrize("waiting", [False, True])
async def test_a_socket_gets_the_jobs_of_a_lease_whose_reply_is_lost(
    setting: Setting, queue_name: str, *, waiting: bool
) -> None:
    async with speaking(setting.server, f"/ws/{queue_name}") as on:
        if waiting:
            await on.send('{"cmd":"lease","count":2,"seconds":3600}')
            await heard(on)
            assert await silent(on)  # it has looked, and waits
        setting.proxy.catch(b"presque_2_lease", "cut")
        setting.server.ask("POST", f"/qb/{queue_name}", '{"jobs": [0, 1]}')
        if not waiting:
            await on.send('{"cmd":"lease","count":2,"seconds":3600}')
            await heard(on)
        assert sorted([(await heard(on))["body"] for _ in range(2)]) == [0, 1]
        assert not setting.proxy.traps  # it was sprung


def test_without_an_attempt_id_they_would_be_held_until_their_lease_ends(
    setting: Setting, queue_name: str
) -> None:
    for number in range(4):
        setting.server.ask("POST", f"/q/{queue_name}", str(number))
    setting.proxy.catch(b"presque_2_lease", "cut")
    path = f"/q/{queue_name}/lease?count=2"

    assert setting.server.ask("POST", path).status == 503
    setting.resumed()
    assert [job["body"] for job in setting.server.ask("POST", path).json["jobs"]] == [2, 3]


@pytest.mark.parametrize("fate", ["cut", "drop"])
@pytest.mark.parametrize(
    ("verb", "state", "counted"),
    [("ack", "done", "processed"), ("fail", "scheduled", "failed"), ("release", "ready", None)],
)
def test_a_settle_whose_reply_is_lost_can_be_sent_again_and_counts_once(
    setting: Setting, queue_name: str, fate: Fate, verb: str, state: str, counted: str | None
) -> None:
    job = leased(setting, queue_name)
    setting.proxy.catch(b"presque_2_settle", fate)
    path = f"/j/{queue_name}/1/{verb}?lease={job['lease']}"

    first = setting.server.ask("POST", path)
    assert first.status == 503
    assert "whether the request took effect is unknown" in first.json["error"]
    setting.resumed()
    for _ in range(2):
        assert setting.server.ask("POST", path).json["state"] == state
    if counted is not None:
        assert setting.server.ask("GET", f"/stats/{queue_name}").json[counted] == 1


def test_a_push_with_an_idempotency_key_can_be_sent_again_when_its_reply_is_lost(
    setting: Setting, queue_name: str
) -> None:
    setting.server.ask("POST", f"/q/{queue_name}", "0")
    setting.proxy.catch(b"presque_2_push", "cut")
    key = f"key of {queue_name}"

    assert setting.server.ask("POST", f"/q/{queue_name}", "1", Idempotency_Key=key).status == 503
    setting.resumed()
    again = setting.server.ask("POST", f"/q/{queue_name}", "1", Idempotency_Key=key)

    assert (again.status, again.json["id"]) == (201, "2")
    assert again.headers["idempotent-replayed"] == "true"
    assert setting.ready(queue_name) == 2


def test_without_the_key_it_would_be_stored_twice(setting: Setting, queue_name: str) -> None:
    setting.server.ask("POST", f"/q/{queue_name}", "0")
    setting.proxy.catch(b"presque_2_push", "cut")

    assert setting.server.ask("POST", f"/q/{queue_name}", "1").status == 503
    setting.resumed()
    setting.server.ask("POST", f"/q/{queue_name}", "1")

    assert setting.ready(queue_name) == 3
