"""Something is wrong, and there is only the command line: what it says, and what it says to type next.

Each test breaks one thing of a real server. After the arrow, or after the semicolon, stands a command, or the
place to look at.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from presque import Client
from tests import rig
from tests.stories.test_cli import Result, run


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with rig.server("--memory") as server:
        yield server.url


def said(result: Result) -> str:
    """All that a command says, in one line."""
    return " ".join((result.stdout + result.stderr).split())


def children_of(pid: int) -> list[int]:
    """The processes that a process has started."""
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def cmdline(pid: int) -> str:
    """How a process was started."""
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")


@pytest.mark.parametrize(
    ("reason", "todo"),
    [
        ("stopped", "presque start"),
        ("no-worker", "presque worker MODULE starts one"),
        ("rate", "presque queues policy"),
        ("max-leased", "presque queues policy"),
        ("leased", "presque workers"),
        ("dead", "presque retry"),
    ],
)
def test_why_a_job_does_not_run_says_what_to_type(url: str, queue_name: str, reason: str, todo: str) -> None:
    with Client(url) as client:
        if reason == "rate":
            client.change_policy(queue_name, rate={"count": 1, "seconds": 3600})
            client.push(queue_name, 0)
        elif reason == "max-leased":
            client.change_policy(queue_name, max_leased=1)
            client.push(queue_name, 0)
        id = client.push(queue_name, 1, attempts=1)
        if reason == "stopped":
            client.stop(queue_name)
        if reason in ("rate", "max-leased", "leased", "dead"):
            [leased] = client.lease(queue_name)
            if reason == "dead":
                client.fail(leased, "poison")
        lines = run("job", queue_name, id, "--explain", "--url", url).stdout.splitlines()
        client.start(queue_name)
    at = next(number for number, line in enumerate(lines) if line.split()[0] == reason)
    arrow = next(line for line in lines[at:] if "→" in line)
    assert todo in arrow


def test_a_server_that_is_not_there(url: str) -> None:
    for wrong, words in (
        ("http://127.0.0.1:1", "start one with `presque serve`, or pass --url"),
        (url.replace("http:", "https:"), "it does not speak TLS: use http://"),
        ("http://no-such-host.invalid:5000", "correct the name in --url"),
        (url.removeprefix("http://"), "use http://host:port"),
    ):
        stats, doctor = run("stats", "--url", wrong), run("doctor", "--url", wrong)
        assert words in said(stats), said(stats)
        assert words in said(doctor), said(doctor)
        assert doctor.returncode == 1


def test_a_certificate_that_has_expired(tmp_path: Path) -> None:
    pem = rig.certificate(tmp_path, "old", "DNS:localhost", "IP:127.0.0.1", expired=True)
    with rig.server("--memory", "--tls-cert", str(pem)) as server:
        asked = run("stats", "--url", server.url, PRESQUE_CA=str(pem))
        plain = run("stats", "--url", server.url.replace("https", "http"))
        unknown = run("stats", "--url", server.url)
    assert "certificate has expired" in said(asked)
    assert "renew the certificate of the server" in said(asked)
    assert "this server speaks TLS: use https://" in said(plain)
    assert "PRESQUE_CA=ca.pem" in said(unknown) or "renew" in said(unknown)


def test_a_token_that_is_missing_wrong_or_expired(tmp_path: Path) -> None:
    with rig.server("--data", str(tmp_path / "data")) as server:
        at = {"PRESQUE_URL": server.url}
        admin = run("token", "new", "admin", "--allow", "*:*", **at).stdout.strip()
        for name, flags, words in (
            ("none", None, "give it with --token or PRESQUE_TOKEN"),
            ("wrong", admin[:-1] + ("a" if admin[-1] != "a" else "b"), "`presque token new` makes one"),
            ("read", ("--allow", "read:*"), "`presque token list` shows what each may do"),
            ("short", ("--allow", "*:*", "--expires", "4s"), "`presque token new` makes another"),
        ):
            token = flags
            if isinstance(flags, tuple):
                token = run("token", "new", name, *flags, PRESQUE_TOKEN=admin, **at).stdout.strip()
            who = {**at, **({"PRESQUE_TOKEN": str(token)} if token else {})}
            if name == "short":
                rig.eventually(lambda who=who: "expired" in said(run("stats", **who)))  # type: ignore[misc]
            for command in (("push", "mail", "1"), ("start", "mail")):
                result = run(*command, **who)
                assert result.returncode == 4
                assert words in said(result), (name, said(result))
            if name != "read":
                assert words in said(run("doctor", **who))


def test_a_store_that_hangs(tmp_path: Path) -> None:
    data = tmp_path / "data"
    patient = (
        "import presque.store.embedded as embedded; embedded.HUNG_S = 3600"  # it would start another one
    )
    program = ("-c", f"{patient}; from presque.cli.main import main; main()")
    with rig.server("--data", str(data), program=program) as server:
        at = {"PRESQUE_URL": server.url, "PRESQUE_DATA": str(data)}
        [store] = [pid for pid in children_of(server.process.pid) if "valkey" in cmdline(pid)]
        os.kill(store, signal.SIGSTOP)
        try:
            rig.eventually(lambda: run("stats", **at).returncode != 0)
            stats, doctor, check = run("stats", **at), run("doctor", **at), run("check", **at)
        finally:
            os.kill(store, signal.SIGCONT)
    assert "run `presque doctor` where the server runs" in said(stats)
    assert "end its process: a store of presque's own is started again by itself" in said(doctor)
    assert doctor.returncode == 1
    assert check.stdout.startswith("PRESQUE CRITICAL - the store")


def test_descriptors_that_have_run_out() -> None:
    """The clients are told that the server cuts them off, and the server's log says why."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))"
    program = ("-c", f"{limit}; from presque.cli.main import main; main()")
    with rig.server("--memory", program=program) as server, ExitStack() as open_:
        for _ in range(80):
            connection = open_.enter_context(socket.socket())
            connection.connect(("127.0.0.1", server.port))
        rig.eventually(lambda: "server.out_of_files" in server.said())
        stats, doctor = run("stats", "--url", server.url), run("doctor", "--url", server.url)
    for one in (stats, doctor):
        assert "run `presque doctor` where the server runs, and look at its log" in said(one), said(one)


def test_a_stopped_queue_that_was_forgotten(queue_name: str) -> None:
    with rig.server("--memory") as server, Client(server.url) as client:  # doctor names three queues at most
        client.push(queue_name, 1)
        client.stop(queue_name)
        rig.eventually(lambda: (client.stats(queue_name)["oldest_seconds"] or 0) > 0.01)
        check = run("check", queue_name, "--oldest", "10ms", "--url", server.url)
        doctor = run("doctor", "--url", server.url)
    assert check.returncode == 1
    assert "and the queue is stopped" in check.stdout
    assert f"`presque start {queue_name}`" in said(doctor)


def test_a_poison_job_is_found_and_tried_again(url: str, queue_name: str) -> None:
    with Client(url) as client:
        client.push(queue_name, {"card": "4711"}, attempts=1)
    run("work", queue_name, "--exec", "echo no such card >&2; exit 1", "--burst", "--url", url)
    listed = run("jobs", queue_name, "--state", "dead", "--url", url)
    assert "no such card" in listed.stdout
    assert f"presque retry {queue_name} 1" in said(run("job", queue_name, "1", "--explain", "--url", url))
