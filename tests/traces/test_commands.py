"""Spans of commands: on a WebSocket, in `POST /queue`, over XMPP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from presque import Client
from tests import chatting, rig
from tests.doors.sockets import heard, speaking
from tests.traces.collector import TRACE, Collector


async def say(door: str, server: rig.Server, command: dict[str, Any]) -> dict[str, Any]:
    """Carry out a command and return its answer."""
    if door == "ws":
        async with speaking(server) as on:
            await on.send(json.dumps(command))
            return dict(await heard(on))
    many = door == "array"
    answer = server.ask("POST", "/queue", json.dumps([command] if many else command)).json
    return dict(answer[0] if many else answer)


every_door = pytest.mark.parametrize("door", ["ws", "single", "array"])


@every_door
async def test_a_command_that_pushes_makes_a_span(
    traced: rig.Server, jaeger: Collector, queue_name: str, door: str
) -> None:
    trace = {"traceparent": f"{TRACE}-01", "tracestate": "shop=1"}
    await say(door, traced, {"cmd": "push", "queue": queue_name, "job": 1, **trace})
    [span] = jaeger.named("command push")
    assert (span.service, span.kind, span.failed) == ("presque", "server", False)
    assert (span.trace, span.state, span.parent) == (TRACE[3:35], "shop=1", TRACE[36:])
    assert span.about == {"presque.verb": "push", "messaging.destination.name": queue_name}
    assert span.began <= span.ended


async def test_so_does_one_that_pushes_many(traced: rig.Server, jaeger: Collector, queue_name: str) -> None:
    command = {"cmd": "push_many", "queue": queue_name, "jobs": [1, 2], "traceparent": f"{TRACE}-01"}
    assert (await say("ws", traced, command))["ids"] == ["1", "2"]
    [span] = jaeger.named("command push_many")
    assert span.parent == TRACE[36:]


@every_door
async def test_what_is_refused_is_in_the_span_of_the_command(
    traced: rig.Server, jaeger: Collector, queue_name: str, door: str
) -> None:
    command = {"cmd": "push", "queue": queue_name, "job": 1, "uniq": "a", "traceparent": f"{TRACE}-01"}
    await say(door, traced, {**command, "traceparent": f"{TRACE}-00"})
    await say(door, traced, command)
    [span] = jaeger.named("command push")
    assert (span.about["error.type"], span.failed) == ("job-exists", False)


@every_door
async def test_no_command_without_a_sampled_traceparent_makes_a_span(
    traced: rig.Server, client: Client, jaeger: Collector, queue_name: str, door: str
) -> None:
    for said in ({}, {"traceparent": f"{TRACE}-00"}, {"traceparent": "00-nonsense"}):
        await say(door, traced, {"cmd": "push", "queue": queue_name, "job": 1, **said})
        await say(door, traced, {"cmd": "stats", "queue": queue_name, **said})
    client.push(queue_name, 1, traceparent=f"{TRACE}-01")
    client.push_many(queue_name, [1, 2])
    jaeger.named("POST /q/{queue}")
    assert [one.name for one in jaeger.spans] == ["POST /q/{queue}"]


@every_door
async def test_every_command_may_have_a_traceparent(
    traced: rig.Server, client: Client, jaeger: Collector, queue_name: str, door: str
) -> None:
    trace = {"traceparent": f"{TRACE}-01", "tracestate": "shop=1"}
    client.push(queue_name, 1)
    [held] = client.lease(queue_name)
    lost = {"cmd": "ack", "queue": queue_name, "id": held.id, "lease": f"{held.id}-0123456789abcdef", **trace}
    assert "the lease has ended" in (await say(door, traced, lost))["error"]
    await say(door, traced, {**lost, "lease": held.lease, "ref": 1})
    await say(door, traced, {"cmd": "stats", "queue": queue_name, **trace})
    await say(door, traced, {"cmd": "settle", "ack": [], **trace})
    of_stats, *_ = jaeger.named("command stats")
    assert (of_stats.trace, of_stats.state, of_stats.parent) == (TRACE[3:35], "shop=1", TRACE[36:])
    assert of_stats.about == {"presque.verb": "stats", "messaging.destination.name": queue_name}
    refused, done = jaeger.all_named("command ack", 2)
    assert (refused.about.get("error.type"), refused.failed) == ("lease-lost", False)
    assert "error.type" not in done.about
    [of_many] = jaeger.named("command settle")
    assert of_many.about == {"presque.verb": "settle"}


@every_door
async def test_a_lease_makes_a_span(
    traced: rig.Server, client: Client, jaeger: Collector, queue_name: str, door: str
) -> None:
    client.push(queue_name, 1)
    told = await say(door, traced, {"cmd": "lease", "queue": queue_name, "traceparent": f"{TRACE}-01"})
    assert "error" not in told
    [span] = jaeger.named("command lease")
    assert (span.parent, span.about["messaging.destination.name"]) == (TRACE[36:], queue_name)


@pytest.fixture(params=["serve", "xmpp"])
def at_prosody(
    request: pytest.FixtureRequest, jaeger: Collector, tmp_path: Path
) -> Iterator[chatting.Prosody]:
    """An XMPP server at which presque is a component, by `serve` or by `presque xmpp` beside one."""
    with chatting.prosody() as found:
        data = ("--data", str(tmp_path / "data"))
        here = {**chatting.settings(found), **jaeger.environment, "PRESQUE_TRACES": "yes"}
        if request.param == "serve":
            with rig.server(*data, **here) as server:
                rig.eventually(lambda: any("xmpp.connected" in line for line in server.everything))
                yield found
            return
        command = [sys.executable, "-m", "presque", "xmpp", *data, "--log-format", "plain"]
        environment = {**os.environ, **here}
        with (
            rig.server(*data),
            subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
            ) as apart,
        ):
            assert apart.stdout is not None
            try:
                while "xmpp.connected" not in (line := apart.stdout.readline()):
                    assert line, "it ended"
                yield found
            finally:
                apart.terminate()
                apart.wait(rig.PATIENCE)


async def test_a_push_over_xmpp_makes_a_span(
    at_prosody: chatting.Prosody, jaeger: Collector, queue_name: str
) -> None:
    async with chatting.friend(at_prosody) as ana:
        command = {"cmd": "push", "job": 1, "traceparent": f"{TRACE}-01"}
        assert (await ana.do(chatting.at(queue_name), command))["id"] == "1"
    [span] = jaeger.named("command push")
    assert (span.parent, span.about["messaging.destination.name"]) == (TRACE[36:], queue_name)


async def test_an_ack_over_xmpp_makes_a_span(
    at_prosody: chatting.Prosody, jaeger: Collector, queue_name: str
) -> None:
    async with chatting.friend(at_prosody) as ana:
        to = chatting.at(queue_name)
        lost = {"cmd": "ack", "queue": queue_name, "id": "1", "lease": "1-0123456789abcdef"}
        assert "code" in await ana.do(to, {**lost, "traceparent": f"{TRACE}-01"})
    [span] = jaeger.named("command ack")
    assert (span.parent, span.failed) == (TRACE[36:], False)
    assert "error.type" in span.about
