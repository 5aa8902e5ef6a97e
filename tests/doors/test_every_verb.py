"""Every verb through every door: a command is answered as the HTTP route of its verb is."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest

from presque.fields import Kind
from presque.verbs import COMMANDS, VERBS
from presque.verbs.verb import Verb
from tests import rig
from tests.chatting import DOMAIN, at, friend
from tests.doors.conftest import Chatting
from tests.doors.scenarios import SCENARIOS, Fields, Scenario, World
from tests.doors.sockets import heard, speaking

DOORS = ("queue", "array", "ws", "ws of the queue")
ON_A_SOCKET_ANOTHER_THING = ("lease",)  # it grants credits there: see test_live.py


def asked(world: World, scenario: Scenario) -> tuple[Verb, Fields]:
    """The verb and its fields, once all is prepared."""
    return VERBS[scenario.verb], scenario.before(world)


def by_route(world: World, scenario: Scenario) -> Any:
    """What the HTTP route answers, as a command would say it."""
    verb, fields = asked(world, scenario)
    answer = world.ask(verb.name, worker=scenario.worker, **fields)
    assert answer.status == scenario.status, answer
    if answer.status >= 400:
        return {"error": answer.json["error"], "code": answer.headers["presque-error"]}
    if verb.name == "fetch":
        headers = answer.headers
        return {"queue": headers["presque-queue"], "id": headers["presque-job-id"], "body": answer.json}
    if verb.name == "fetch_many":
        return {"queue": world.queue, "jobs": answer.json}
    if verb.name == "lease" and answer.status == 204:
        return {"jobs": []}
    if verb.name == "workers" and isinstance(answer.json, list):
        return {"workers": answer.json}
    return answer.json if answer.body else None


def by_command(world: World, scenario: Scenario, *, array: bool) -> Any:
    """What `POST /queue` answers."""
    verb, fields = asked(world, scenario)
    command = {"cmd": verb.name, "ref": 7, **fields}
    headers = {"X_presque_workerid": world.worker} if scenario.worker else {}
    answer = world.server.ask("POST", "/queue", json.dumps([command] if array else command), 30, **headers)
    if array:
        assert answer.status == 200
        [said] = answer.json
        assert said.pop("ref") == 7
        return said
    if answer.status >= 400:
        assert answer.status == scenario.status
        return {"error": answer.json["error"], "code": answer.headers["presque-error"]}
    said = answer.json
    assert said.pop("ref") == 7
    return said


async def by_socket(world: World, scenario: Scenario, *, named: bool) -> Any:
    """What a WebSocket answers; a socket of the queue need not be told its name."""
    verb, fields = asked(world, scenario)
    path = "/ws"
    if named and fields.get("queue") == world.queue:
        path = f"/ws/{fields.pop('queue')}"
    query = f"?worker={world.worker}" if scenario.worker else ""
    async with speaking(world.server, path + query) as on:
        await on.send(json.dumps({"cmd": verb.name, "ref": 7, **fields}))
        said = await heard(on)
    assert said.pop("ref") == 7
    return said


def comparable(world: World, said: Any) -> Any:
    """An answer without what differs from one time, or one server, to the next."""
    if said is None:
        return None
    if "error" in said and "code" in said:
        # What a query calls a parameter is a field of a command.
        text = said["error"].replace("unknown parameter", "unknown field")
        return world.plain({"error": text, "code": said["code"]})
    if "act" in said:  # who asked differs from door to door
        return world.plain({name: value for name, value in said.items() if name not in ("by", "name")})
    if "by_queue" in said:
        return world.plain({"members": sorted(said), "ours": said["by_queue"][world.queue]})
    if set(said) == {"queues", "size"}:
        return world.plain({"queues": [one for one in said["queues"] if one == world.queue]})
    if set(said) == {"crons", "cursor"}:
        return world.plain(said["crons"])
    if set(said) == {"workers"}:
        ours = (world.worker, [world.worker])
        found = [one for one in said["workers"] if one in ours or world.worker in json.dumps(one)]
        return world.plain({"workers": found})
    return world.plain(said)


@functools.cache
def expected(server: rig.Server, scenario: Scenario) -> Any:
    """The answer of the route; of a verb that has none, that of the single command."""
    world = World(server)
    if VERBS[scenario.verb].route is not None:
        return comparable(world, by_route(world, scenario))
    return comparable(world, by_command(world, scenario, array=False))


def test_every_verb_has_a_scenario_that_works() -> None:
    asked_for = {one.verb for one in SCENARIOS if one.status < 400}
    assert asked_for >= set(COMMANDS)
    assert asked_for >= {
        verb.name for verb in VERBS.values() if verb.command or verb.name in ("control", "report")
    }


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    "scenario", [one for one in SCENARIOS if one.verb in COMMANDS], ids=lambda one: one.name
)
async def test_a_command_is_answered_as_its_route_is(
    server: rig.Server, scenario: Scenario, door: str
) -> None:
    world = World(server)
    if door in ("queue", "array"):
        said = by_command(world, scenario, array=door == "array")
    elif scenario.verb in ON_A_SOCKET_ANOTHER_THING:
        return
    else:
        said = await by_socket(world, scenario, named=door != "ws")
    wanted = expected(server, scenario)
    if wanted is None:  # the route answers with a status alone
        assert "error" not in said
    else:
        assert comparable(world, said) == wanted


async def test_a_command_over_xmpp_is_answered_as_its_route_is(xmpp: Chatting) -> None:
    async with friend(xmpp.prosody) as ana:
        for scenario in SCENARIOS:
            if scenario.verb not in COMMANDS:
                continue
            world = World(xmpp.server)
            verb, fields = asked(world, scenario)
            to, worker = DOMAIN, world.worker if scenario.worker else None
            if verb.name != "all_stats" and fields.get("queue") == world.queue:
                to = at(fields.pop("queue"))
            said = await ana.do(to, {"cmd": verb.name, "ref": 7, **fields}, worker)
            assert said.pop("ref") == 7
            wanted = expected(xmpp.server, scenario)
            if wanted is None:
                assert "error" not in said
            else:
                assert comparable(world, said) == wanted, scenario.name


# --- what is wrong with a field


WRONG: dict[Kind, list[tuple[Any, str]]] = {
    Kind.TEXT: [(5, "should be a text, not `5`"), ([], "should be a text, not a list")],
    Kind.WHOLE: [("x", "should be a whole number"), (1.5, "should be a whole number"), (-1, "not `-1`")],
    Kind.NUMBER: [("x", "should be a number"), ({}, "not an object"), (-1, "not `-1`")],
    Kind.DURATION: [("soon", "not `soon`"), (-1, "not `-1`"), ([], "not a list")],
    Kind.MOMENT: [("soon", "not `soon`"), ({}, "not an object")],
    Kind.FLAG: [("perhaps", "should be true or false"), (5, "should be true or false")],
    Kind.WORD: [("nothing", "not `nothing`"), (5, "not `5`")],
    Kind.QUEUE: [("-x", "`-x` is"), (5, "should be a queue")],
    Kind.QUEUES: [("-x", "`-x` is"), ([], "should be a queue list")],
    Kind.ID: [("x", "`x` is"), (5, "should be a job id")],
    Kind.NAME: [("-x", "`-x` is"), (5, "should be a name")],
    Kind.WORKER: [("a b", "`a b` is"), (5, "should be a worker id")],
    Kind.OBJECT: [(5, "should be an object"), ({"zzz": 1}, "`zzz`")],
    Kind.LIST: [(5, "should be")],
}
HUGE = 10**400
NO_FLOAT = "1e400"  # stands in JSON without its quotes


def wrong_fields() -> list[tuple[str, str, Any, str]]:
    """A verb, a field of it, a value that it cannot have, and what the error says."""
    found = []
    for verb in COMMANDS.values():
        for field in verb.members.values():
            if field.kind is Kind.JSON:
                continue
            if field.undecoded and field.name in ("ack", "fail", "release", "extend", "jobs"):
                continue  # their scenarios are above
            found += [(verb.name, field.name, value, says) for value, says in WRONG[field.kind]]
            if field.kind in (Kind.WHOLE, Kind.NUMBER, Kind.DURATION, Kind.MOMENT):
                found.append((verb.name, field.name, HUGE, "not a number of more than 24 digits"))
            found.append((verb.name, field.name, NO_FLOAT, "a number that is too large"))
    return found


def test_a_wrong_field_is_named_with_what_it_should_be_and_what_came(server: rig.Server) -> None:
    asked_for = wrong_fields()
    commands: list[Fields] = []
    for verb, name, value, _ in asked_for:
        named = {"queue": "wrong"} if "queue" in COMMANDS[verb].members else {}
        commands.append({"cmd": verb, **named, name: value})
    written = json.dumps(commands).replace(f'"{NO_FLOAT}"', NO_FLOAT)
    answers = server.ask("POST", "/queue", written).json
    for (verb, name, value, says), answer in zip(asked_for, answers, strict=True):
        assert says in answer["error"], (verb, name, value, answer)
        assert answer["code"] in ("invalid-request", "invalid-name", "unknown-parameter"), (
            verb,
            name,
            answer,
        )


def test_a_missing_field_is_named(server: rig.Server) -> None:
    for verb in COMMANDS.values():
        needed = [one for one in verb.members.values() if one.required]
        for missing in needed:
            if verb.without is not None and missing.name == verb.without[0]:
                continue
            others = {
                one.name: one.words[0] if one.words else EXAMPLE[one.kind]
                for one in needed
                if one is not missing
            }
            [answer] = server.ask("POST", "/queue", json.dumps([{"cmd": verb.name, **others}])).json
            assert answer["error"].startswith(f"`{missing.name}` is missing: "), (verb.name, answer)


EXAMPLE: dict[Kind, Any] = {
    Kind.TEXT: "x", Kind.JSON: 1, Kind.QUEUE: "q", Kind.QUEUES: "q", Kind.ID: "1", Kind.NAME: "n",
    Kind.WORKER: "w", Kind.LIST: [],
}  # fmt: skip


def test_an_unknown_field_or_command_is_told_with_the_nearest_one(server: rig.Server) -> None:
    for verb in COMMANDS.values():
        for name in verb.fields:
            if name in ("queue", "queues") or len(name) < 4:
                continue
            typo = name[:-1] + "xe"
            answer = server.ask("POST", "/queue", json.dumps([{"cmd": verb.name, typo: 1}])).json[0]
            assert f"unknown field `{typo}`" in answer["error"], (verb.name, answer)
            assert answer["code"] == "unknown-parameter"
    [answer] = server.ask("POST", "/queue", '[{"cmd":"psuh","queue":"q","job":1}]').json
    assert answer["error"] == "there is no command `psuh`: did you mean `push`?"


SETTLES = (
    ("5", "should be an object, not a whole number"),
    ("[]", "should be an object, not a list"),
    ('{"ack":5}', "ack` should be a list, not a whole number"),
    ('{"akc":[]}', "unknown field `akc`"),
    ('{"ack":[{"queue":"wrong","id":"1","reslt":1}]}', "ack[0]`, did you mean `result`?"),
    ('{"fail":[{"queue":"wrong","retry_in":1e400}]}', "fail[0].retry_in` holds a number that is too large"),
    ('{"fail":[{"queue":"wrong","error":5}]}', "fail[0].error` should be a text, not a whole number"),
    ('{"release":[{"queue":"wrong"}]}', "`lease` is missing in"),
)  # fmt: skip


@pytest.mark.parametrize(("settle", "says"), SETTLES, ids=[says for _, says in SETTLES])
def test_what_is_wrong_in_a_settle_is_named_with_its_place(
    server: rig.Server, settle: str, says: str
) -> None:
    alone = server.ask("POST", "/settle", settle)
    with_a_lease = server.ask("POST", "/q/wrong/lease", f'{{"settle":{settle}}}')
    [command] = server.ask("POST", "/queue", f'[{{"cmd":"lease","queue":"wrong","settle":{settle}}}]').json
    for code, error in (
        (alone.json["code"], alone.json["error"]),
        (with_a_lease.json["code"], with_a_lease.json["error"]),
        (command["code"], command["error"]),
    ):
        assert says in error
        assert code == ("unknown-parameter" if "did you mean" in error else "invalid-request")
    assert "settle" not in alone.json["error"]
    assert "`settle" in with_a_lease.json["error"] or "`settle" in command["error"] or "akc" in settle


@pytest.mark.parametrize("cmd", ["5", "true", "[]", '""', "1e400"])
def test_a_command_that_is_called_by_no_text_is_told_what_came(server: rig.Server, cmd: str) -> None:
    [answer] = server.ask("POST", "/queue", f'[{{"cmd":{cmd},"queue":"q"}}]').json
    assert answer["error"].startswith("`cmd` should be a text such as `push`, not ")


# --- what is not JSON


NOT_JSON = (
    (rb'{"t":"\ud83d"}', r"`\ud83d` at byte 6 is half a character (a lone surrogate)"),
    (rb'{"t":"\ude00"}', r"`\ude00` at byte 6 is half a character"),
    (rb'{"t":"\ud83d","u":"and so on"}', r"`\ud83d` at byte 6 is half a character"),
    (b"{to:ana}", "`to:ana}` at byte 1 is not in double quotes; if a shell took them away"),
    (b"a=1", '`a=1` looks like a form; send a document such as {"a": 1}'),
    (b"{'to':1}", "begins with a single quote; JSON has double quotes"),
    (b'{"a":NaN}', "`NaN` at byte 5 is not a word of JSON"),
    (b'{"a":', "it ends in the middle"),
    (b'"a\nb"', "there is a control character at byte 2"),
    (b'\xef\xbb\xbf{"a":1}', "it begins with a byte order mark"),
    (b"[" * 10_000, "the body is nested too deep"),
)


@pytest.mark.parametrize(("body", "says"), NOT_JSON, ids=[says[:30] for _, says in NOT_JSON])
@pytest.mark.parametrize(
    "path", ["/q/wrong", "/qb/wrong", "/queue", "/settle", "/q/wrong/lease", "/j/wrong/1/ack?lease=x", "/w/"]
)
def test_what_is_not_json_is_told_so_that_it_can_be_mended(
    server: rig.Server, path: str, body: bytes, says: str
) -> None:
    answer = server.ask("POST", path, body)
    assert (answer.status, answer.headers["presque-error"]) == (400, "not-json")
    assert says in answer.json["error"]


@pytest.mark.parametrize(("body", "says"), NOT_JSON, ids=[says[:30] for _, says in NOT_JSON])
async def test_a_message_that_is_not_json_is_told_so(server: rig.Server, body: bytes, says: str) -> None:
    async with speaking(server) as on:
        await on.send(body.decode())
        answer = await heard(on)
    assert answer["code"] == "not-json"
    assert says in answer["error"]


@pytest.mark.parametrize("path", ["/q/wrong", "/qb/wrong", "/queue", "/settle", "/q/wrong/lease"])
def test_bytes_that_are_not_utf_8_are_told_so(server: rig.Server, path: str) -> None:
    answer = server.ask("POST", path, b'{"jobs":["\xff"]}')
    assert (answer.status, answer.headers["presque-error"]) == (400, "not-json")
    assert "the body is not UTF-8" in answer.json["error"]
