"""A lease that settles others first, when the store cannot settle them: nothing is leased to nobody."""

from __future__ import annotations

import json

import pytest

from tests import rig


@pytest.mark.parametrize("wait", [0, 20])
def test_what_was_leased_beside_a_settle_that_failed_is_given_back(store: rig.Store, wait: int) -> None:
    space = f"settles{wait}"
    with rig.server("--redis", store.url, "--namespace", space) as server, store.client() as client:
        for queue in ("broken", "sound"):
            server.ask("POST", f"/q/{queue}", "1")
        [held] = server.ask("POST", "/q/broken/lease").json["jobs"]
        client.set(space + ":{broken}:runs", "damaged")
        ack = {name: held[name] for name in ("queue", "id", "lease")}

        answer = server.ask("POST", "/q/sound/lease", json.dumps({"wait": wait, "settle": {"ack": [ack]}}))

        assert (answer.status, answer.headers["presque-error"]) == (500, "store-error")
        rig.eventually(
            lambda: server.ask("POST", "/queue", '{"cmd":"stats","queue":"sound"}').json["ready"] == 1
        )
        [job] = server.ask("POST", "/q/sound/lease").json["jobs"]
        assert job["attempt"] == 1, "giving back is no attempt"
