"""What the guide for operators tells them to set up, set up."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from presque import Client
from tests import rig
from tests.docs import documents
from tests.stories.test_cli import run

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
            *in_a_namespace(server),
            server.ask("GET", "/stats/"),
        ]

    assert [answer.body for answer in asked if answer.status >= 400] == []


def in_a_namespace(server: rig.Server) -> list[rig.Answer]:
    asked = [server.ask("POST", "/namespaces", '{"namespace":"acme","quotas":{"jobs":9,"connections":9}}')]
    asked.append(server.ask("POST", "/q/mail", "1", Presque_Namespace="acme"))
    asked.append(server.ask("GET", "/namespaces/acme"))
    asked.append(server.ask("DELETE", "/namespaces/acme"))
    rig.eventually(lambda: server.ask("GET", "/namespaces").json["namespaces"] == [], 30)
    return asked


def with_leases(server: rig.Server) -> list[rig.Answer]:
    policy = {"max_leased": 5, "group_leased": 1, "rate": {"count": 9, "seconds": 0.001}, "keep": 60, "lease": 60}
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
    asked += [server.ask("POST", f"/q/film?group={group}", "1") for group in "ab"]
    asked += [server.ask("GET", path) for path in ("/search?limit=1", "/failures")]
    for asks in ('"act":"move","to":"reel","state":"any"', '"act":"retry"', '"act":"delete","state":"any"'):
        asked.append(server.ask("POST", "/tasks", f'{{"queues":"film,reel",{asks}}}'))
        begun = asked[-1].headers["location"]
        rig.eventually(lambda: server.ask("GET", begun).json["ended_at"])  # noqa: B023
        asked.append(server.ask("GET", begun))
        assert asked[-1].json["problems"] == []
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
    used = {command.lower() for command in re.findall(r"redis\.p?call\('([A-Z]+)'", source)}
    used |= {command.lower() for command in re.findall(r"(?:and|or) '(Z[A-Z]+)'", source)}  # one of two
    said_by_presque = set(re.findall(r"\+([a-z|]+)", rule[: rule.index("+exists")]))
    granted = set(re.findall(r"\+([a-z|]+)", rule[rule.index("+exists") : rule.index("```")]))
    assert granted == used - said_by_presque


# --- the commands of the guide


def commands_with(word: str) -> list[documents.Command]:
    """The commands of the guide that begin with `presque WORD`."""
    blocks = [one for one in documents.blocks(OPERATIONS) if one.language == "console"]
    commands = [command for block in blocks for command in block.commands()]
    return [one for one in commands if one.text.startswith(f"presque {word}")]


def test_every_command_of_the_guide_is_run_here_or_with_the_other_documents() -> None:
    blocks = [one for one in documents.blocks(OPERATIONS) if one.language == "console" and one.reason]
    excused = [command.text for block in blocks for command in block.commands()]
    ran = [one.text for word in ("serve", "backup", "restore") for one in commands_with(word)]
    assert sorted(excused) == sorted(ran)


def test_the_servers_of_the_guide_start(store: rig.Store, queue_name: str, tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    token = run("token", "new", "me", "--allow", "*:*", "--data", data).stdout.strip()
    for command in commands_with("serve"):
        flags = shlex.split(command.text)[2:]
        if "--redis" in flags:
            flags[flags.index("--redis") + 1] = store.url
            with rig.server(*flags, PRESQUE_NAMESPACE=queue_name) as server:
                assert server.ask("GET", "/readyz").status == 200
        else:
            name = flags[flags.index("--allow-host") + 1]
            with rig.server("--data", data, *flags) as server:
                asked = server.ask("GET", "/stats/", Host=name, Authorization=f"Bearer {token}")
                assert asked.status == 200
    with store.client() as client:
        client.delete(*client.scan_iter(f"{queue_name}:*"))


def test_the_backup_of_the_guide_is_taken_and_put_back(tmp_path: Path) -> None:
    places = {"/var/lib/presque": tmp_path / "lib", "/backups": tmp_path / "backups"}
    (tmp_path / "backups").mkdir()

    def here(text: str) -> str:
        for path, place in places.items():
            text = text.replace(path, str(place))
        return text

    def said_as(command: documents.Command) -> None:
        done = run(*shlex.split(here(command.text))[1:])
        assert (done.returncode, done.stderr) == (0, "")
        numbers = re.sub(r"[0-9]+", "[0-9]+", re.escape(here(command.output)))
        assert re.fullmatch(numbers, done.stdout), done.stdout

    with rig.server("--data", str(tmp_path / "lib")) as server, Client(server.url) as client:
        for n in range(7):
            client.push_many(f"queue{n}", range(10))
        [backup] = commands_with("backup")
        said_as(backup)
    [restore] = commands_with("restore")
    said_as(restore)
    with rig.server("--data", str(tmp_path / "lib")) as server:
        assert server.ask("GET", "/status/queue3").json["size"] == 10
