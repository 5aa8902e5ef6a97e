"""Every request of every door asks at one place whether it may: when that is closed, nothing gets through."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from presque.verbs import COMMANDS, LIVE_COMMANDS, VERBS
from presque.verbs.verb import Verb
from tests import rig
from tests.doors.sockets import heard, speaking

# `may` is asked with the scope of the verb and the queues that it names; here it lets nobody through.
CLOSED = """
from presque.commands.who import Who
from presque.errors import CallerError

class Closed(CallerError):
    code = "closed"

def may(self, scope, queues, over=''):
    raise Closed(f"closed: {scope} {getattr(queues, 'text', queues)}")

Who.may = may
from presque.cli.main import main
main()
"""

VALUES: dict[str, Any] = {
    "queue": "q", "queues": "q,r*", "id": "1", "name": "c", "lease": "1-x", "state": "dead",
    "status": "start",
    "worker_id": "w", "schedule": "@daily", "body": 1, "job": 1, "jobs": [1], "value": 1, "key": "q:1",
    "priority": 9, "allow": "read", "token_id": "t", "token": "t",
    "act": "retry", "task_id": "1", "namespace": "n", "quotas": {"jobs": 1},
}  # fmt: skip
OPEN = ("commands", "openapi", *(name for name, verb in VERBS.items() if verb.open or verb.public))
"""One holds other verbs, one says what is public; and those that anybody may ask."""


@pytest.fixture(scope="module")
def closed() -> Iterator[rig.Server]:
    with rig.server("--memory", program=("-c", CLOSED)) as server:
        yield server


def said(verb: Verb) -> dict[str, Any]:
    """Values for the fields without which the verb is refused before anything is asked."""
    wanted = {name for name, field in verb.fields.items() if field.required}
    if verb.name == "change":
        wanted.add("priority")
    if "job" in verb.fields:
        wanted.add("job")
    values = {name: VALUES[name] for name in wanted}
    return values | ({"allow": ["read:q"]} if verb.name == "new_token" else {})


def expected(verb: Verb) -> str:
    named = next((VALUES[name] for name in ("queue", "queues") if name in verb.fields), None)
    if named is not None and not {"queue", "queues"} & set(said(verb)):
        named = None
    return f"closed: {verb.scope} {named}"


@pytest.mark.parametrize("name", [name for name, verb in VERBS.items() if verb.route and name not in OPEN])
def test_every_route_asks_whether_it_may(closed: rig.Server, name: str) -> None:
    verb = VERBS[name]
    fields = said(verb)
    target = verb.path.format(**fields)
    inside = {key: value for key, value in fields.items() if key not in verb.in_path}
    if verb.scope == "lease" and "lease" in inside:
        target += f"?lease={inside.pop('lease')}"
    if verb.body == "job":
        body: str | None = json.dumps(inside.pop("job"))
    elif verb.body == "none":
        body = None
        if inside:
            target += "?" + "&".join(f"{key}={value}" for key, value in inside.items())
    else:
        body = json.dumps(inside)
    answer = closed.ask(verb.method, target, body, X_presque_workerid="w")
    assert (answer.headers["presque-error"], answer.json["error"]) == ("closed", expected(verb))


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_asks_whether_it_may(closed: rig.Server, name: str) -> None:
    verb = COMMANDS[name]
    fields = {"queue" if key == "queues" else key: value for key, value in said(verb).items()}
    for body in {"cmd": name, **fields}, [{"cmd": name, **fields}]:
        answer = closed.ask("POST", "/queue", json.dumps(body), X_presque_workerid="w").json
        told = answer[0] if isinstance(answer, list) else answer
        assert told["error"] == expected(verb)


async def test_every_message_of_a_socket_asks_whether_it_may(closed: rig.Server) -> None:
    async with speaking(closed, "/ws?worker=w") as on:
        for name, verb in LIVE_COMMANDS.items():
            if name == "hello":
                continue  # says who asks, and asks for nothing
            fields = {"queue" if key == "queues" else key: value for key, value in said(verb).items()}
            await on.send(json.dumps({"cmd": name, "ref": name, **fields}))
            answer = await heard(on)
            assert (answer["ref"], answer["error"]) == (name, expected(verb)), name
