"""The guide about incidents, each section run on a server that has that trouble."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from presque import Client
from tests import rig
from tests.docs import documents
from tests.docs.test_examples import fits, run

INCIDENTS = documents.ROOT / "docs" / "guides" / "incidents.md"


@contextlib.contextmanager
def growing(home: Path) -> Iterator[rig.Server]:
    """A queue that somebody stopped, and that no worker asks for."""
    with rig.server("--memory") as server, Client(server.url) as client:
        client.push_many("mail", range(30))
        client.stop("mail")
        yield server


@contextlib.contextmanager
def silent(home: Path) -> Iterator[rig.Server]:
    """A worker that holds a job and does not move, and a clock that the test moves."""
    with rig.server("--memory", "--test-clock") as server, Client(server.url) as client:
        client.change_policy("film", lease=60)
        worker = subprocess.Popen(
            [sys.executable, "-m", "presque", "work", "film", "--exec", "sleep 600", "--worker-id", "encoder-1"],
            env={**os.environ, "PRESQUE_URL": server.url},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            rig.eventually(client.worker_records, 30)
            client.push("film", {"file": "a.mov"})
            rig.eventually(lambda: client.stats("film")["leased"])
            os.killpg(worker.pid, signal.SIGSTOP)
            yield server
        finally:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


@contextlib.contextmanager
def poisoned(home: Path) -> Iterator[rig.Server]:
    """A job that failed as often as it may, among others that did not."""
    with rig.server("--memory") as server, Client(server.url) as client:
        for name in "a", "broken", "c":
            client.push("thumbs", {"file": f"{name}.png"}, attempts=2)
        for _ in range(2):
            for job in client.lease("thumbs", 3):
                if job.value["file"] == "broken.png":
                    client.fail(job, "exit status 1: not a picture", retry_in=0)
                else:
                    client.ack(job)
        yield server


@contextlib.contextmanager
def full(home: Path) -> Iterator[rig.Server]:
    """A disk that something else has filled."""
    with rig.small_disk("64m") as disk, contextlib.ExitStack() as stack:
        here = stack.enter_context(
            rig.server("--data", str(disk / "presque"), "--min-free-disk", "40MiB")
        )
        client = stack.enter_context(Client(here.url))
        client.push_text("mail", '{"to": "bob"}')
        client.push("mail", {"to": "eve"})
        core = disk / "core.4711"
        core.write_bytes(bytes(30 * 1024 * 1024))
        (home / "core.4711").symlink_to(core)
        removes = home / "bin" / "rm"  # what the guide removes is a link here
        removes.write_text(f'#!/bin/sh\nexec {rig.require("rm")} "$@" {core}\n')
        removes.chmod(0o755)
        rig.eventually(lambda: here.ask("GET", "/stats/").json["disk"]["full"])
        yield here


@contextlib.contextmanager
def away(home: Path) -> Iterator[rig.Server]:
    """A store that was killed, and a `systemctl` that brings it back with its data."""
    log = ("--appendonly", "yes", "--appendfsync", "always")
    with rig.store("redis-7.0", *log) as store, rig.server("--redis", store.url) as server:
        with Client(server.url) as client:
            client.push_text("mail", '{"to": "bob"}')
        store.process.kill()
        store.process.wait()
        pid = home / "store.pid"
        again = [
            store.binary, "--port", "0", "--unixsocket", store.socket, "--dir", str(store.directory),
            "--save", "", "--daemonize", "yes", "--pidfile", str(pid), *log,
        ]  # fmt: skip
        systemctl = home / "bin" / "systemctl"
        systemctl.write_text("#!/bin/sh\nexec " + " ".join(part or '""' for part in again) + "\n")
        systemctl.chmod(0o755)
        try:
            yield server
        finally:
            number = int(pid.read_text())
            os.kill(number, signal.SIGKILL)
            rig.eventually(lambda: not Path(f"/proc/{number}").exists())


TROUBLES: dict[str, Callable[[Path], AbstractContextManager[rig.Server]]] = {
    "The queue grows": growing,
    "A worker is silent": silent,
    "A poison job": poisoned,
    "The disk fills": full,
    "The store is away": away,
}


def blocks_of(heading: str) -> list[documents.Block]:
    """The commands of a section."""
    lines = INCIDENTS.read_text("utf-8").splitlines()
    begin = lines.index(f"## {heading}") + 1
    end = next(i for i, line in enumerate([*lines, "## "], 1) if i > begin and line.startswith("## "))
    return [one for one in documents.blocks(INCIDENTS) if one.language == "console" and begin < one.line < end]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("heading", TROUBLES)
def test_every_step_of_an_incident_prints_what_the_guide_says(heading: str, tmp_path: Path) -> None:
    rig.require("curl")
    (tmp_path / "bin").mkdir()
    with pytest.MonkeyPatch.context() as patch, TROUBLES[heading](tmp_path) as server:
        patch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
        for number, block in enumerate(blocks_of(heading)):
            if heading == "A worker is silent" and number == 1:  # more than 20 s, and than the lease, go by
                server.ask("POST", "/clock", json.dumps({"advance": 61}))
                rig.eventually(lambda: server.ask("GET", "/stats/film").json["ready"])
            for command in block.commands():
                printed = run(command, {5000: server}, tmp_path)
                assert fits(printed, command.output.rstrip("\n")), f"{command.text}\n{printed}"


def test_every_section_with_commands_is_run() -> None:
    headings = re.findall(r"^## (.+)$", INCIDENTS.read_text("utf-8"), re.MULTILINE)
    assert [heading for heading in headings if blocks_of(heading)] == list(TROUBLES)
