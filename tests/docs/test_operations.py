"""What the guide for operators tells them to set up, set up."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests import rig
from tests.docs import documents

OPERATIONS = documents.ROOT / "docs" / "guides" / "operations.md"


@pytest.fixture
def acl_user(store: rig.Store, queue_name: str) -> Iterator[dict[str, str]]:
    """The settings of a server that logs in as the guide says, in a namespace called as the queue."""
    [block] = [b for b in documents.blocks(OPERATIONS) if b.lines and b.lines[0].startswith("ACL SETUSER")]
    rule = " ".join(block.lines).replace("presque:*", f"{queue_name}:*")
    with store.client() as client:
        client.execute_command(*rule.split())
        yield {
            "PRESQUE_REDIS__UNIX": store.socket,
            "PRESQUE_REDIS__USERNAME": "presque",
            "PRESQUE_REDIS__PASSWORD": "PASSWORD",
            "PRESQUE_NAMESPACE": queue_name,
        }
        client.acl_deluser("presque")
        client.delete(*client.scan_iter(f"{queue_name}:*"))


def test_the_acl_user_of_the_guide_may_do_all_that_presque_does(acl_user: dict[str, str]) -> None:
    with rig.server(**acl_user) as server:
        asked = [
            server.ask("POST", "/q/mail?uniq=key&ttl=60&delay=0.01&priority=9", "1"),
            server.ask("PUT", "/q/mail", "2", X_presque_workerid="w"),
            server.ask("GET", "/q/m*?wait=20", X_presque_workerid="w"),
            server.ask("GET", "/q/mail?wait=20"),
            server.ask("GET", "/status/mail?with_desc=1"),
            server.ask("POST", "/control/mail", '{"status":"stop"}'),
            server.ask("POST", "/control/mail", '{"status":"start"}'),
            server.ask("POST", "/w/mail", X_presque_workerid="w"),
            server.ask("GET", "/w/"),
            server.ask("GET", "/w/?worker_id=w"),
            server.ask("DELETE", "/w/mail", X_presque_workerid="w"),
            server.ask("DELETE", "/q/mail"),
            *with_leases(server),
            server.ask("GET", "/stats/"),
        ]

    assert [answer.body for answer in asked if answer.status >= 400] == []


def with_leases(server: rig.Server) -> list[rig.Answer]:
    policy = {"max_leased": 5, "group_leased": 1, "rate": {"count": 9, "seconds": 0.001}, "keep": 60, "lease": 1}
    asked = [server.ask("PATCH", "/p/film", json.dumps(policy))]
    asked.append(server.ask("POST", "/q/film?group=a", "1"))
    for _ in range(2):
        asked.append(server.ask("POST", "/q/film?group=a", "1", Idempotency_Key="key"))
    asked.append(server.ask("POST", "/q/film/lease?attempt_id=x&count=9"))
    asked.append(server.ask("POST", "/q/film/lease?attempt_id=x&count=9"))
    lease = asked[-1].json["jobs"][0]["lease"]
    asked.append(server.ask("GET", "/j/film/2/explain"))
    asked.append(server.ask("POST", f"/j/film/1/ack?lease={lease}"))
    asked.append(server.ask("POST", f"/j/film/1/ack?lease={lease}"))
    asked += [server.ask("GET", f"/j/film?state={state}&limit=1") for state in ("done", "ready")]
    asked.append(server.ask("PATCH", "/j/film/2", '{"delay":60}'))
    asked.append(server.ask("GET", "/j/film/2?wait=0.1"))
    asked.append(server.ask("POST", "/j/film/retry"))
    asked.append(server.ask("DELETE", "/j/film/2"))
    asked.append(server.ask("DELETE", "/q/film"))
    often = '{"queue":"film","body":1,"schedule":"@every 1s"}'
    asked.append(server.ask("PUT", "/cron/often", often))
    rig.eventually(lambda: server.ask("GET", "/status/film").json["size"] > 0)
    asked += [server.ask(method, "/cron/often") for method in ("GET", "DELETE")]
    return asked


def test_the_acl_user_of_the_guide_may_do_no_more_than_it_needs() -> None:
    text = OPERATIONS.read_text("utf-8")
    rule = text[text.index("ACL SETUSER") :]
    source = "".join(file.read_text("utf-8") for file in (documents.ROOT / "src").rglob("*.lua"))
    used = {command.lower() for command in re.findall(r"redis\.call\('([A-Z]+)'", source)}
    granted = set(re.findall(r"\+([a-z|]+)", rule[rule.index("+exists") : rule.index("```")]))
    assert granted == used
