"""Secrets go in through every door, and are found nowhere but where they belong.

The canaries: the password of the store, the secret of the XMPP component, access tokens and what is made of
them (narrower ones, the cookie of a session, a link), the body of a job, and a value in a query. They are
looked for in the log, in what processes show of themselves, in traces, in `config show` and in what the
server says of itself, while all goes well and while the store is away. An answer may repeat to its asker what
was wrong in a query or a body; it never repeats a token.
"""

from __future__ import annotations

import json
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
from presque.client import narrow
from presque.verbs import VERBS
from presque.worker import settings
from tests import chatting, rig
from tests.chatting import DOMAIN, Prosody, at, friend
from tests.doors.sockets import heard, speaking
from tests.doors.tokens import Guarded, guarded
from tests.stories.test_cli import run
from tests.traces.collector import TRACE, Collector, collector

PASSWORD, TOKEN, BODY, QUERY = (f"canary-{what}-7c1e93" for what in ("password", "token", "body", "query"))
SECRETS = (PASSWORD, TOKEN, BODY, QUERY)
COOKIES = ("presque_session", "__Host-presque_session", "__Secure-presque_session")

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
                    Authorization=f"Bearer {TOKEN}", Cookie="; ".join(f"{name}={TOKEN}" for name in COOKIES),
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


def test_a_password_in_the_list_of_processes_is_warned_of() -> None:
    with rig.store("valkey") as store:
        with store.client() as client:
            client.config_set("requirepass", PASSWORD)
        url = f"unix://:{PASSWORD}@{store.socket}"
        with rig.server("--redis", url) as server:
            said = server.said()
        assert "server.password_seen flag=--redis" in said
        assert found_in(said, (PASSWORD,)) == []
        with rig.server(PRESQUE_REDIS=url) as server:
            assert "server.password_seen" not in server.said()


# --- a server that wants tokens, with every door open

COMPONENT = "canary-component-7c1e93"
TLS_COOKIE = {"X_Forwarded_Proto": "https"}


class Proofs(NamedTuple):
    """A token, and what was made of it."""

    token: str
    thin: str
    cookie: str
    host_cookie: str
    link: str

    @property
    def secrets(self) -> tuple[str, ...]:
        """The end of each: whoever has it has the rest."""
        return tuple(one.rpartition("=")[2][-43:] for one in self)


def login(found: Guarded, token: str, **headers: str) -> str:
    answer = found.ask(None, "POST", "/login", {"token": token}, **headers)
    return answer.headers["set-cookie"].partition(";")[0]


def proofs(found: Guarded) -> Proofs:
    token = found.make("*:*")
    assert found.ask(token, "POST", "/q/mail", f'"{BODY}"').status == 201
    plain, secure = (login(found, token, **headers) for headers in ({}, TLS_COOKIE))
    assert secure.startswith("__Host-presque_session=")
    link = found.ask(token, "POST", "/j/mail/1/link", {"allow": "read"}).json["url"]
    return Proofs(token, narrow(token, deny=["push:other"]), plain, secure, link)


def shown_in_many_ways(found: Guarded, mine: Proofs) -> Iterator[rig.Answer]:
    """The answers to requests that show these, where they belong and where they do not; all are traced."""
    token, thin, cookie, host_cookie, link = mine
    asked: list[tuple[str | None, str, str, object, dict[str, str]]] = [
        (None, "GET", "/j/mail?limit=1", None, {"Cookie": cookie}),
        (None, "GET", "/status/mail", None, {"Cookie": host_cookie, **TLS_COOKIE}),
        (None, "GET", "/status/mail", None, {"Cookie": host_cookie}),
        (None, "GET", link.partition("?")[0], None, {"Cookie": f"{cookie}x"}),
        (None, "GET", link, None, {}),
        (None, "GET", f"{link}x", None, {}),
        (None, "GET", f"/q/mail?token={token}", None, {}),
        (None, "GET", "/q/mail", None, {"Authorization": f"Basic {token}"}),
        (None, "POST", "/login", {"token": f"{token}x"}, {}),
        (None, "POST", "/logout", None, {"Cookie": host_cookie, **TLS_COOKIE}),
        (found.admin, "DELETE", f"/tokens/{thin}", None, {}),
        (found.admin, "DELETE", f"/tokens/{token}", None, {}),
        (thin, "GET", f"/search?text={QUERY}", None, {}),
        (thin, "POST", "/tasks", {"act": "delete", "queues": "other", "text": QUERY}, {}),
        (thin, "POST", "/queue", {"cmd": token}, {}),
        (thin, "POST", "/queue", [{token: 1}, {"cmd": "push", "queue": "mail", "job": 1, token: 1}], {}),
        (thin, "POST", "/queue", {"cmd": "push", "queue": "mail", "job": 1, "delay": token}, {}),
        (thin, "POST", "/import", json.dumps({"queue": "brought", "body": BODY}) + f"\n{BODY}\n", {}),
        (thin, "PUT", "/cron/c", {"queue": "mail", "schedule": "@yearly", "body": BODY}, {}),
        (thin, "PUT", "/cron/d", {"queue": "mail", "schedule": token, "body": BODY}, {}),
        (thin, "GET", f"/q/mail?wait={token}", None, {}),
    ]
    for shown, method, path, body, headers in asked:
        yield found.ask(shown, method, path, body, traceparent=f"{TRACE}-01", **headers)


async def shown_in_messages(found: Guarded, mine: Proofs) -> str:
    """What sockets answer."""
    said = ""
    for options in (
        {"additional_headers": {"Cookie": mine.cookie}, "origin": f"http://127.0.0.1:{found.server.port}"},
        {"subprotocols": ["presque", f"presque.token.{mine.thin}"]},
        {},
    ):
        async with speaking(found.server, **options) as on:
            for message in (
                {"cmd": "hello", "token": f"{mine.token}x"},
                {"cmd": "hello", "token": mine.thin},
                {"cmd": mine.token},
                {"cmd": "push", "queue": "mail", "job": BODY, mine.token: 1},
            ):
                await on.send(json.dumps(message))
                said += json.dumps(await heard(on))
            assert on.response is not None
            said += repr(on.response.headers)
    return said


async def shown_in_chats(prosody: Prosody, mine: Proofs) -> str:
    """What is answered to somebody who takes a chat for the place of a token."""
    said = ""
    async with friend(prosody) as ana:
        for to in DOMAIN, at("mail"):
            for text in mine.token, f"hello {mine.thin}", f"push {mine.token}", f"jobs state={mine.token}":
                said += await ana.chat(to, text)
            for command in {"cmd": mine.token}, {"cmd": "hello", "token": mine.thin}, {mine.token: 1}:
                said += json.dumps(await ana.do(to, command))
    return said


def said_on_command_lines(found: Guarded, mine: Proofs, home: Path) -> str:
    """What commands print that are given these."""
    url, said = found.server.url, ""
    home.mkdir()
    environment = {"XDG_CONFIG_HOME": str(home), "PRESQUE_URL": url, "PRESQUE_TOKEN": mine.token}
    other = found.make("read:*")
    for arguments, stdin in (
        (("context", "new", "work", url, "--token", "-"), mine.token),
        (("context", "list"), ""),
        (("context", "list", "--json"), ""),
        (("doctor",), ""),
        (("doctor", "--json", "--context", "work"), ""),
        (("token", "list"), ""),
        (("token", "revoke", other), ""),
        (("token", "revoke", other), ""),
        (("token", "revoke", f"{mine.token}x"), ""),
        (("stats", "--url", f"{url}{mine.link}"), ""),
        (("stats", "--url", url.replace("//", f"//{mine.token}@")), ""),
        (("work", "--queues", "brought", "--exec", "exit 65", "--burst", "--log-level", "debug"), ""),
    ):
        done = run(*arguments, stdin=stdin, **environment)
        said += f"{arguments[:2]} {done.returncode}\n{done.stdout}{done.stderr}"
    shown = {"PRESQUE_XMPP__JID": "p.example", "PRESQUE_XMPP__SECRET": COMPONENT}
    for arguments in ("config", "show"), ("config", "show", "--json"), ("config", "check"), ("doctor",):
        said += run(*arguments, **shown).stdout + run(*arguments, **shown).stderr
    names = {"PRESQUE_TLS__CLIENTS": json.dumps({"CN=a": mine.token}), "PRESQUE_TLS__CLIENT_CA": "/a"}
    refused = run("config", "show", PRESQUE_TLS__CERT="/c", **names)
    assert refused.returncode != 0
    assert found.ask(other, "GET", "/whoami").status in (401, 404)
    return said + refused.stdout + refused.stderr


def said_of_itself(found: Guarded) -> str:
    """What the server tells somebody who may see everything, but for jobs."""
    paths = ("/stats/", "/history", "/metrics", "/server", "/audit", "/tokens", "/w/", "/readyz", "/failures")
    said = ""
    for path in paths:
        answer = found.ask(found.admin, "GET", path)
        assert answer.status == 200, (path, answer)
        said += answer.body.decode()
    openmetrics = found.ask(found.admin, "GET", "/metrics", Accept="application/openmetrics-text").body
    assert openmetrics.endswith(b"# EOF\n")
    return said + openmetrics.decode()


def traced(traces: Collector) -> str:
    """All spans, once those have come that matter."""
    traces.named("DELETE", "GET /j/{queue}/{id}", "POST /queue", "PUT /cron/{name}")  # DELETE: refused
    return repr(traces.spans)


@pytest.mark.timeout(240)
async def test_no_proof_of_who_one_is_is_found_where_it_does_not_belong(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(COMPONENT)
    with (
        collector() as traces,
        chatting.prosody(chatting.HOSTS.replace(chatting.SECRET, COMPONENT)) as prosody,
    ):
        environment = chatting.settings(prosody, secret_file=secret) | traces.environment
        del environment["PRESQUE_XMPP__SECRET"]
        environment["PRESQUE_PROXIES"] = "127.0.0.1"
        with guarded(tmp_path, "--log-level", "debug", "--traces", **environment) as found:
            rig.eventually(lambda: any("xmpp.connected" in line for line in found.server.everything))
            mine = proofs(found)
            secrets = (*mine.secrets, COMPONENT)
            for answer in shown_in_many_ways(found, mine):
                assert found_in(repr(answer.headers) + answer.body.decode(), secrets) == []
            assert found_in(await shown_in_messages(found, mine), secrets) == []
            assert found_in(await shown_in_chats(prosody, mine), secrets) == []
            said = said_on_command_lines(found, mine, tmp_path / "home")
            assert found_in(said, (*secrets, BODY)) == []
            assert "('token', 'revoke') 0\n" in said
            everything = (*secrets, BODY, QUERY)
            assert found_in(said_of_itself(found), everything) == []
            assert found_in(traced(traces), everything) == []
            assert found_in(shown_by_processes(found.server), everything) == []
            prosody.stop()
            rig.eventually(lambda: any("xmpp.disconnected" in line for line in found.server.everything))
            assert found.server.stop() == 0
            assert found_in("".join(found.server.everything), everything) == []
            assert found_in((tmp_path / "presque" / "store.log").read_text(), everything) == []


def test_what_a_traceback_shows_of_the_settings_of_a_worker_has_no_token_in_it() -> None:
    read = settings.read({"token": TOKEN, "queues": "mail"}, {}, {})
    assert read.token == TOKEN
    assert TOKEN not in repr(read)
