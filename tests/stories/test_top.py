"""`presque top` on real terminals of several sizes: what it shows, what keys do, how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from presque import Client
from presque.cli.columns import width_of
from presque.cli.full_screen import typed
from presque.cli.trouble import trouble
from presque.client.answers import QueueCounts
from tests import rig
from tests.screens import Screen, screen
from tests.stories.test_cli import run

LONG = "a-queue-with-a-name-that-is-longer-than-most-and-goes-on-and-on"
_PRESQUE = (sys.executable, "-m", "presque")
LEFT = b"\x1b[?1049l"


def filled(server: rig.Server) -> None:
    """Queues of all kinds, and a worker."""
    with Client(server.url) as client:
        client.push_many("calm", range(2), delay="1h")
        client.push_many("mail", range(5))
        client.push_many(LONG, range(3))
        client.push_many("film", range(3))
        for job in client.lease("film", 2):
            client.fail(job, "codec \x1b[31m is missing 名前", retry=False)
        client.stop("mail")
    report = json.dumps({"queues": ["mail"], "state": "idle", "processed": 3, "failed": 1})
    server.ask("PUT", "/w/", report, X_presque_workerid="worker-1")


@pytest.fixture(scope="module")
def at() -> Iterator[dict[str, str]]:
    """A server that tests look at, and only change in queues of their own."""
    with rig.server("--memory") as server:
        filled(server)
        yield {"PRESQUE_URL": server.url}


def fits(shown: Screen, columns: int) -> None:
    """Nothing on the screen is wider than it, and no line went on in the next."""
    assert [line for line in shown.lines if width_of(line) > columns] == []
    assert all(not line.startswith(("-on", "goes")) for line in shown.lines)


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_every_panel_fits_the_terminal(columns: int, at: dict[str, str]) -> None:
    with screen("top", "--every", "0.2", columns=columns, at=at) as shown:
        text = shown.shows("mail", "film", "calm", "a-queue", "stopped", "q quit")
        fits(shown, columns)
        assert ("failed/min" in text) == (columns >= 80)
        assert (LONG in text) == (columns == 200)
        shown.type("\t")
        shown.shows("[workers]", "worker-1")
        fits(shown, columns)
        shown.type("\t")
        shown.shows("[failures]", "film", "codec")
        fits(shown, columns)
        shown.type("?")
        shown.shows("filter" if columns > 40 else "show only", "stop the queue")
        fits(shown, columns)
        shown.type(" q")
        assert shown.ends() == 0


def test_queues_in_trouble_come_first_and_other_orders_can_be_had(at: dict[str, str]) -> None:
    def names(text: str) -> list[str]:
        rows = text.split("ready", 2)[2].splitlines()
        found = [line.lstrip("> ").split()[0] for line in rows if line.strip()]
        return [name for name in found if name in ("mail", "film", "calm")]

    with screen("top", columns=120, at=at) as shown:
        text = shown.shows("calm", "by trouble")
        assert names(text) == ["mail", "film", "calm"] or names(text) == ["film", "mail", "calm"]
        shown.type("o")
        assert names(shown.shows("by name")) == ["calm", "film", "mail"]
        shown.type("o")
        assert names(shown.shows("by ready")) == ["mail", "film", "calm"]


def test_a_filter_and_the_chosen_row(at: dict[str, str]) -> None:
    with screen("top", columns=100, at=at) as shown:
        shown.shows("row 1 of 4")
        shown.type("\x1b[B\x1b[B")
        shown.shows("row 3 of 4")
        shown.type("\x1b[F")
        shown.shows("row 4 of 4")
        shown.type("\x1b[5~")
        shown.shows("row 1 of 4")
        shown.type("/fi")
        shown.until(lambda text: "/fi_" in text and "calm" not in text)
        shown.type("\r")
        shown.until(lambda text: "holding 'fi'" in text and "> film" in text)
        shown.type("/zz\x7f\x7fm\x1b")  # Esc takes the text back
        shown.shows("holding 'fi'")
        shown.type("\r")
        shown.until(lambda text: "of film" in text and "row 1 of 2" in text)


def test_only_some_queues_are_asked_for(at: dict[str, str]) -> None:
    with screen("top", "fi*,mail", at=at) as shown:
        assert "calm" not in shown.shows("film", "mail")


def test_keys_stop_start_and_retry_and_ask_first(at: dict[str, str], queue_name: str) -> None:
    with Client(at["PRESQUE_URL"]) as client:
        client.push_many(queue_name, range(3))
        for job in client.lease(queue_name, 2):
            client.fail(job, "no", retry=False)
        with screen("top", queue_name, "--every", "0.2", columns=120, at=at) as shown:
            shown.shows(f"> {queue_name}")
            shown.type("s")
            shown.shows(f"Stop {queue_name}? It still accepts jobs", "[y/N]")
            shown.type("n")
            shown.shows("nothing was changed")
            assert client.started(queue_name)
            shown.type("s")
            shown.shows("[y/N]")
            shown.type("y")
            shown.shows(f"{queue_name} is stopped")
            assert not client.started(queue_name)
            shown.type("g")
            shown.shows(f"{queue_name} is started")
            assert client.started(queue_name)
            shown.type("r")
            shown.shows(f"Retry 2 dead jobs of {queue_name}? [y/N]")
            shown.type("y")
            shown.shows(f"2 jobs of {queue_name} retried")
            assert client.stats(queue_name)["ready"] == 3
            shown.type("r")
            shown.until(lambda text: f"{queue_name} has no dead jobs" in text)

            for job in client.lease(queue_name, 2):
                client.fail(job, "no", retry=False)
            shown.type("\r")
            shown.shows("[failures]", "row 1 of 2")
            shown.type("d")
            shown.shows("Delete job", "[y/N]")
            shown.type("y")
            shown.shows("is deleted")
            assert rig.eventually(lambda: client.stats(queue_name)["dead"] == 1)
            shown.until(lambda text: "row" not in text)
            shown.type("r")
            shown.shows("is retried", "no dead jobs")
            shown.type("q")
            assert shown.ends() == 0


def test_a_worker_is_told_to_be_quiet_and_to_go_on(at: dict[str, str]) -> None:
    def status() -> str:
        with Client(at["PRESQUE_URL"]) as client:
            return client.worker_records()[0]["status"]

    with screen("top", "--every", "0.2", columns=100, at=at) as shown:
        shown.shows("film")
        shown.type("\t")
        shown.shows("> worker-1")
        for key, question, word in (("s", "take no further job?", "quiet"), ("x", "and end?", "stop")):
            shown.type(key)
            shown.shows(question)
            shown.type("y")
            shown.shows("worker-1 is asked to")
            assert status() == word
        shown.type("g")
        shown.shows("take jobs again")
        assert status() == "start"


def test_what_a_server_refuses_is_said_and_the_screen_stays(tmp_path: Path) -> None:
    data = str(tmp_path / "data")
    admin = run("token", "new", "a", "--allow", "*:*", "--data", data).stdout.strip()
    reader = run("token", "new", "r", "--allow", "read:*", "--data", data).stdout.strip()
    with rig.server("--data", data) as server:
        with Client(server.url, admin) as client:
            client.push("mail", 1)
        with screen("top", columns=100, at={"PRESQUE_URL": server.url, "PRESQUE_TOKEN": reader}) as shown:
            shown.shows("> mail")
            shown.type("sy")
            shown.shows("control")
            shown.type("q")
            assert shown.ends() == 0
        with screen("top", at={"PRESQUE_URL": server.url}) as shown:
            assert shown.ends() == 4
            assert LEFT not in shown.written  # the screen was never taken


# --- the terminal


def test_a_resized_terminal_is_filled_again(at: dict[str, str]) -> None:
    with screen("top", columns=120, lines=30, at=at) as shown:
        shown.shows("failed/min")
        for columns, lines in ((40, 12), (200, 50), (25, 4), (80, 24)):
            shown.resize(columns, lines)
            last = lines - 1
            rig.eventually(lambda: shown.lines[last].startswith("? help"))  # noqa: B023
            fits(shown, columns)
        shown.shows("film", "mail")


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("q", 0),
        ("\x03", 130),
        (signal.SIGTERM, -signal.SIGTERM),
        (signal.SIGHUP, -signal.SIGHUP),
        (signal.SIGQUIT, -signal.SIGQUIT),
        (signal.SIGKILL, -signal.SIGKILL),
        ("exception", 1),
    ],
)
def test_the_terminal_is_as_before_however_it_ends(
    how: str | int, code: int, at: dict[str, str], tmp_path: Path
) -> None:
    if how == "exception":  # a fault of ours, in the midst of drawing
        (tmp_path / "sitecustomize.py").write_text(
            "import presque.cli.top_page as page\n"
            "drawn = page.Page.lines\n"
            "def lines(self, *given):\n"
            "    if self.order != 'trouble':\n"
            "        raise RuntimeError('a fault')\n"
            "    return drawn(self, *given)\n"
            "page.Page.lines = lines\n"
        )
        at, how = {**at, "PYTHONPATH": str(tmp_path)}, "o"
    with screen("top", at=at) as shown:
        shown.shows("film", "q quit")
        assert not shown.kept_settings()
        if isinstance(how, str):
            shown.type(how)
        else:
            os.kill(shown.process.pid, how)
        assert shown.process.wait(30) == code
        rig.eventually(lambda: LEFT in shown.written)
        rig.eventually(shown.kept_settings)
        shown.settled()
        assert shown.written.rfind(b"\x1b[?25h") > shown.written.rfind(b"\x1b[?25l")  # the cursor is back


def test_ctrl_z_gives_the_terminal_back_until_it_goes_on(at: dict[str, str]) -> None:
    # A shell that controls jobs, as people have: an orphan is not stopped by Ctrl-Z.
    shell = ("bash", "--norc", "--noprofile", "-i")
    with screen(command=shell, columns=100, at={**at, "PS1": "ready> ", "HISTFILE": ""}) as shown:
        shown.shows("ready>")
        shown.type(f"{sys.executable} -m presque top\n")
        shown.shows("film", "q quit")
        shown.type("\x1a")
        rig.eventually(lambda: LEFT in shown.written)
        shown.until(lambda text: "Stopped" in text)
        shown.type("fg\n")
        rig.eventually(lambda: shown.written.count(b"\x1b[?1049h") == 2)
        shown.shows("film", "q quit")
        shown.type("q")
        rig.eventually(lambda: shown.written.count(LEFT) == 2)
        shown.type("stty -a | grep -o ' echo \\|icanon'; exit\n")
        shown.until(lambda text: "icanon" in text.split("grep")[-1])


def test_no_colours_for_those_who_want_none(at: dict[str, str]) -> None:
    with screen("top", at={**at, "NO_COLOR": "1"}) as shown:
        shown.shows("> ", "film", "q quit")
        assert b"m" not in {part[-1:] for part in _sequences(shown.written)}
    with screen("top", at=at) as shown:
        shown.shows("film", "q quit")
        assert b"\x1b[7m" in shown.written


def _sequences(written: bytes) -> list[bytes]:
    return re.findall(rb"\x1b\[[0-9;?]*[@-~]", written)


def test_a_job_cannot_command_the_terminal(at: dict[str, str]) -> None:
    with screen("top", columns=100, at=at) as shown:
        shown.shows("film")
        shown.type("\t\t")
        shown.shows("codec ?[31m is missing")


def test_it_wants_a_terminal(at: dict[str, str]) -> None:
    said = run("top", **at)
    assert (said.returncode, said.stdout) == (2, "")
    assert "not a terminal: `presque stats --watch` prints lines" in said.stderr
    with screen("top", at={**at, "TERM": "dumb"}) as shown:
        assert shown.ends() == 2
        assert "this terminal cannot move its cursor" in shown.text


# --- the server


def test_it_says_when_the_server_is_away_and_recovers(tmp_path: Path) -> None:
    data, port = str(tmp_path / "data"), str(rig.free_port())
    with screen("top", at={"PRESQUE_URL": f"http://127.0.0.1:{port}"}) as shown:
        assert shown.ends() == 3
        assert "start one with `presque serve`" in shown.text.replace("\n", "")
    with rig.server("--data", data, "--port", port) as server:
        filled(server)
        found = Screen([*_PRESQUE, "top", "--every", "0.2"], 100, 24, {"PRESQUE_URL": server.url})
        try:
            found.shows("film", "q quit")
        except BaseException:
            found.close()
            raise
    try:
        found.shows("AWAY for", "trying again", "film")
        with rig.server("--data", data, "--port", port) as server:
            found.until(lambda text: "AWAY" not in text and "film" in text)
            os.kill(server.process.pid, signal.SIGSTOP)
            try:
                found.shows("NO ANSWER for")
                found.type("\t")  # the keys go on
                found.shows("[workers]")
            finally:
                os.kill(server.process.pid, signal.SIGCONT)
            found.until(lambda text: "NO ANSWER" not in text and "AWAY" not in text)
            found.type("q")
            assert found.ends() == 0
    finally:
        found.close()


# --- without a terminal


def counts(**other: object) -> QueueCounts:
    found: dict[str, object] = {
        "ready": 0, "scheduled": 0, "leased": 0, "done": 0, "dead": 0, "processed": 0, "failed": 0,
        "expired": 0, "oldest_seconds": None, "status": 1,
        "last_minute": {"pushed": 0, "processed": 0, "failed": 0},
    }  # fmt: skip
    return {**found, **other}  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("of", "level", "word"),
    [
        (counts(), 0, ""),
        (counts(status=0), 1, "stopped"),
        (counts(status=0, ready=1, oldest_seconds=1.0), 3, "stopped"),
        (counts(ready=1, oldest_seconds=11.0), 4, "no worker"),
        (counts(ready=1, oldest_seconds=11.0, leased=1), 0, ""),
        (counts(last_minute={"pushed": 0, "processed": 3, "failed": 2}), 4, "failing"),
        (counts(ready=9, leased=1, oldest_seconds=301.0), 3, "late"),
        (counts(dead=1), 2, "dead jobs"),
        (counts(ready=1, last_minute={"pushed": 9, "processed": 3, "failed": 0}), 1, "growing"),
    ],
)
def test_trouble_has_a_word(of: QueueCounts, level: int, word: str) -> None:
    assert trouble(of) == (level, word)


def test_keys_are_read_out_of_what_terminals_send() -> None:
    assert list(typed("a\x1b[A\x1bOB\x1b[6~\t\r\x7f/é")) == [
        "a", "up", "down", "page down", "tab", "enter", "backspace", "/", "é",
    ]  # fmt: skip
    assert list(typed("\x1b[200~x\x1b[1;5C\x1b")) == ["x", "escape"]
    assert list(typed("\x00\x01\x1b[")) == []
