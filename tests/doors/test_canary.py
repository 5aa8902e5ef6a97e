"""Secrets go in through every door, and are found nowhere but where they belong.

Four canaries: the password of the store, an access token, the body of a job, and a value in a query. They are
looked for in the log, in what processes show of themselves, in `config show` and in what the server says of
itself, while all goes well and while the store is away. An answer may repeat to its asker what was wrong in a
query or a body; it never repeats a token.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from websockets.sync.client import connect

from presque import Client, ClientError
from presque.verbs import VERBS
from tests import rig

PASSWORD, TOKEN, BODY, QUERY = (f"canary-{what}-7c1e93" for what in ("password", "token", "body", "query"))
SECRETS = (PASSWORD, TOKEN, BODY, QUERY)


BODIES = (f'"{BODY}"', f'{{"jobs":["{BODY}"]}}', f'{{"result":"{BODY}","error":"{BODY}"}}', BODY, None)
MESSAGES = (f'{{"cmd":"push","job":"{BODY}"}}', f'{{"cmd":"{BODY}"}}', BODY, f'{{"token":"{TOKEN}"}}')


class World(NamedTuple):
    """A server on a store with a password, and the settings file that it was given."""

    server: rig.Server
    store: rig.Store
    settings: Path


@pytest.fixture(params=["1", "2"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with rig.store("valkey", "--appendonly", "yes") as store:
        with store.client() as client:
            client.config_set("requirepass", PASSWORD)
        secret, settings = tmp_path / "secret", tmp_path / "presque.yaml"
        secret.write_text(PASSWORD + "\n")
        settings.write_text(f"redis:\n  unix: {store.socket}\n  password_file: {secret}\n")
        flags = ("--config", str(settings), "--log-level", "debug", "--workers", request.param)
        with rig.server(*flags) as server:
            yield World(server, store, settings)


def through_http(server: rig.Server) -> Iterator[rig.Answer]:
    """The answers to every verb, right and wrong."""
    for verb in VERBS.values():
        if verb.route is None or verb.streams or verb.name == "events":
            continue
        path = re.sub(r"\{\w+\}", "mail", verb.path)
        for body in BODIES:
            for query in "", f"?uniq={QUERY}", f"?lease={QUERY}", f"?nothing={QUERY}", f"?token={QUERY}":
                yield server.ask(
                    verb.method, path + query, None if verb.takes else body, 30,
                    Authorization=f"Bearer {TOKEN}", Cookie=f"presque={TOKEN}",
                )  # fmt: skip


def through_sockets(server: rig.Server) -> None:
    address = f"ws://127.0.0.1:{server.port}/ws/mail"
    with connect(address, additional_headers={"Authorization": f"Bearer {TOKEN}"}) as socket:
        for message in MESSAGES:
            socket.send(message)
            socket.recv(rig.PATIENCE)


def through_clients(server: rig.Server) -> str:
    """What the client and the command line say that is not asked for."""
    with Client(server.url, TOKEN) as client:
        client.push("mail", BODY)
    said = ""
    for port in server.port, 1:
        try:
            Client(f"http://127.0.0.1:{port}", TOKEN, timeout=5).ack(("mail", "1", "x"))  # type: ignore[arg-type]
        except (ClientError, TypeError, ValueError, AttributeError) as error:
            said += repr(error)
        done = subprocess.run(
            [sys.executable, "-m", "presque", "push", "mail", "-", "--url", f"http://127.0.0.1:{port}"],
            input=f'"{BODY}', capture_output=True, text=True, timeout=30, check=False,
            env={**os.environ, "PRESQUE_TOKEN": TOKEN},
        )  # fmt: skip
        said += done.stdout + done.stderr
    return said


def shown_by_processes(server: rig.Server) -> str:
    """The command lines of the server and of all that it started, and the environments of the latter."""
    said = ""
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            parent = int((process / "stat").read_text().rpartition(") ")[2].split()[1])
            if int(process.name) == server.process.pid or parent == server.process.pid:
                said += (process / "cmdline").read_text()
            if parent == server.process.pid:
                said += (process / "environ").read_text()
        except OSError:
            continue  # it has ended
    return said


def said_of_settings(settings: Path) -> str:
    said = ""
    for command in (["config", "show"], ["config", "show", "--json"], ["config", "check"], ["doctor"]):
        done = subprocess.run(
            [sys.executable, "-m", "presque", *command, "--config", str(settings)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        said += done.stdout + done.stderr
    return said


def found_in(text: str, secrets: tuple[str, ...] = SECRETS) -> list[str]:
    return [one for one in secrets if one in text]


@pytest.mark.timeout(180)
def test_no_secret_is_found_where_it_does_not_belong(world: World) -> None:
    server = world.server
    for answer in through_http(server):
        text = repr(answer.headers) + answer.body.decode()
        assert found_in(text, (PASSWORD, TOKEN)) == []
    through_sockets(server)
    assert found_in(through_clients(server), (PASSWORD, TOKEN, BODY)) == []
    assert found_in(shown_by_processes(server)) == []
    assert found_in(said_of_settings(world.settings)) == []
    for path in "/stats/", "/metrics", "/openapi.json", "/livez", "/readyz", "/":
        assert found_in(server.ask("GET", path).body.decode()) == []

    world.store.process.send_signal(signal.SIGKILL)  # what is said when things go wrong
    for path in f"/q/mail?uniq={QUERY}", f"/q/mail?delay={QUERY}", "/queue":
        answer = server.ask("POST", path, f'"{BODY}"', 30, Authorization=f"Bearer {TOKEN}")
        assert answer.status >= 400
        assert found_in(answer.body.decode(), (PASSWORD, TOKEN, BODY)) == []
    assert server.stop() == 0
    said = "".join(server.everything)
    assert "request.failed" in said
    assert found_in(said) == []
