"""What holds for all commands: which exit codes they have, and that programs can read what they print."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from presque.cli.main import presque, run
from presque.cli.man import commands
from presque.cli.stored import each
from presque.exits import INTERRUPTED, USAGE, Failure
from presque.verbs import VERBS
from tests import rig

ALL = {
    " ".join(names[1:]): command
    for names, command, _ in commands(presque, click.Context(presque, info_name="presque"))
    if not isinstance(command, click.Group)
}

NO_JSON = {
    "serve": "it runs until it is stopped; its log has --log-format json",
    "xmpp": "it runs until it is stopped; its log has --log-format json",
    "worker": "it runs until it is stopped; its log has --log-format json",
    "work": "it runs until it is stopped; its log has --log-format json",
    "top": "it is a screen: stats, workers and failures have --json",
    "export": "what it prints is lines of JSON already",
    "lease": "what it prints is lines of JSON already",
    "check": "its form is that of Nagios' plugins",
    "queues forget": "the server answers nothing; the exit code says it",
    "start": "the server answers nothing; the exit code says it",
    "stop": "the server answers nothing; the exit code says it",
    "purge": "the server answers nothing; the exit code says it",
    "token revoke": "the server answers nothing; the exit code says it",
    "token narrow": "it prints a token and nothing else",
    "namespace delete": "the server answers nothing; the exit code says it",
    "cron delete": "the server answers nothing; the exit code says it",
    "context new": "it says what was typed; `context list` has --json",
    "context use": "it says what was typed; `context list` has --json",
    "context remove": "it says what was typed; `context list` has --json",
    "open": "it opens a browser",
    "completion": "it prints a script",
    "man": "it writes pages",
    "config check": "the exit code says it; `config show` has --json",
}
"""Commands without `--json`, each with the reason."""

REFUSED = {
    "push": "% 1",
    "fetch": "%",
    "peek": "%",
    "jobs": "%",
    "job": "% 1",
    "failures": "%",
    "retry": "% 1",
    "delete": "% 1",
    "move": "q % --state dead --yes",
    "export": "%",
    "lease": "%",
    "ack": "% 1 token",
    "fail": "% 1 token",
    "release": "% 1 token",
    "extend": "% 1 token",
    "queues forget": "% --yes",
    "queues policy": "%",
    "start": "%",
    "stop": "%",
    "purge": "% --yes",
    "stats": "%",
    "history": "%",
    "tail": "%",
    "token new": "n --allow nonsense",
    "namespace new": "%",
    "cron set": "n q 1 nonsense",
    "change": "% 1 --priority 1",
    "link": "% 1",
}
"""Command lines that only the server can refuse, by 400. `%` is not a name."""

NOTHING_TO_REFUSE = {
    "serve": "asks no server",
    "xmpp": "asks no server",
    "worker": "its names are checked before it asks",
    "work": "its names are checked before it asks",
    "token narrow": "asks no server",
    "context list": "asks no server",
    "context new": "asks no server",
    "context remove": "asks no server",
    "context use": "asks no server",
    "completion": "asks no server",
    "man": "asks no server",
    "backup": "asks no server",
    "restore": "asks no server",
    "config show": "asks no server",
    "config check": "asks no server",
    "check": "has the exit codes of Nagios",
}


@pytest.fixture
def here(server: rig.Server, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """The server that commands of this process talk to."""
    for name in ("PRESQUE_TOKEN", "PRESQUE_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PRESQUE_URL", server.url)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("NO_COLOR", "1")


def test_a_program_can_read_what_every_command_prints() -> None:
    without = {
        name for name, command in ALL.items() if not any("--json" in param.opts for param in command.params)
    }
    assert without == NO_JSON.keys()


def test_what_changes_by_itself_can_be_watched() -> None:
    watched = {
        name for name, command in ALL.items() if any("--watch" in param.opts for param in command.params)
    }
    assert watched == {
        "stats", "history", "workers", "jobs", "failures", "tasks show", "tasks list", "cron list",
    }  # fmt: skip


def test_help_says_bounds_in_words() -> None:
    for name, command in ALL.items():
        said = command.get_help(click.Context(command, info_name=name))
        assert "<=" not in said, name
        assert ">=" not in said, name


@pytest.mark.parametrize("name", sorted(ALL.keys() - {"check"}))
def test_a_mistake_that_the_command_notices_is_exit_code_2(
    name: str, here: None, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run([*name.split(), "--no-such-option"]) == USAGE
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.startswith("presque: unknown option `--no-such-option`")
    assert said.err.endswith(f" (see `presque {name} --help`)\n")


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_mistake_that_only_the_server_notices_is_exit_code_2(
    name: str, here: None, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run([*name.split(), *REFUSED[name].split()]) == USAGE
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.startswith("presque: ")
    assert said.err.count("\n") == 1


BY = {
    "push_many": "push",
    "fetch_many": "fetch",
    "settle": "ack",
    "retry_all": "retry",
    "explain": "job",
    "search": "jobs",
    "new_task": "retry",
    "tasks": "tasks list",
    "task": "tasks show",
    "pause_task": "tasks pause",
    "resume_task": "tasks resume",
    "cancel_task": "tasks cancel",
    "policy": "queues policy",
    "change_policy": "queues policy",
    "crons": "cron list",
    "cron": "cron show",
    "put_cron": "cron set",
    "run_cron": "cron run",
    "pause_cron": "cron pause",
    "resume_cron": "cron resume",
    "delete_cron": "cron delete",
    "info": "stats",
    "queues": "queues list",
    "size": "stats",
    "started": "stats",
    "control": "stop",
    "all_stats": "stats",
    "tell_worker": "workers",
    "events": "tail",
    "readyz": "check",
    "server": "doctor",
    "new_token": "token new",
    "tokens": "token list",
    "revoke_token": "token revoke",
    "new_namespace": "namespace new",
    "namespaces": "namespace list",
    "namespace": "namespace show",
    "change_namespace": "namespace set",
    "delete_namespace": "namespace delete",
}
"""Verbs whose command has another name."""

NO_COMMAND = {
    "put_back": "a worker of 2010 says so; `fail` and `release` are for people",
    "register": "a worker registers itself",
    "unregister": "a worker registers itself",
    "report": "a worker reports itself",
    "leave": "a worker leaves by itself",
    "commands": "each of its commands is one here",
    "stream": "`work` takes jobs as they come",
    "metrics": "for Prometheus",
    "livez": "for supervisors",
    "openapi": "for programs that make clients",
    "clock": "for tests",
    "move_clock": "for tests",
    "login": "for browsers",
    "logout": "for browsers",
    "whoami": "for the dashboard",
    "add": "a word of RestMQ",
    "take": "a word of RestMQ",
    "get": "a word of RestMQ",
    "del": "a word of RestMQ",
}
"""Verbs without a command, each with the reason."""


def test_every_verb_has_a_command() -> None:
    assert {BY.get(name, name) for name in VERBS.keys() - NO_COMMAND.keys()} <= ALL.keys()
    assert not NO_COMMAND.keys() & ALL.keys()


def test_every_command_that_asks_a_server_can_be_refused_by_it() -> None:
    of_ids = {name for name in ALL if name.startswith(("tasks ", "cron ", "namespace ", "token "))}
    looks = {"workers", "top", "queues list", "open", "bench", "doctor", "import", "audit"}
    assert ALL.keys() == REFUSED.keys() | NOTHING_TO_REFUSE.keys() | of_ids | looks


def values() -> Iterator[tuple[str, str]]:
    for name, command in ALL.items():
        for param in command.params:
            if isinstance(param, click.Option) and not param.is_flag and not param.count:
                yield name, param.opts[0]


@pytest.mark.parametrize("name", sorted(ALL))
def test_an_option_without_its_value_says_what_is_wanted(
    name: str, here: None, capfd: pytest.CaptureFixture[str]
) -> None:
    for flag in [flag for of, flag in values() if of == name]:
        code = run([*name.split(), flag])
        said = capfd.readouterr()
        assert f"`{flag}` needs a value: {flag} " in said.out + said.err
        assert code == (3 if name == "check" else USAGE)


# --- Ctrl-C


def test_ctrl_c_among_named_jobs_says_with_which_one_to_go_on() -> None:
    def act(id: str) -> str:
        if id == "3":
            raise KeyboardInterrupt
        return id

    with pytest.raises(
        Failure, match=r"^stopped: 2 jobs of 4 deleted; the rest begins with job 3$"
    ) as caught:
        each(("1", "2", "3", "4"), act, "deleted", as_json=False)
    assert caught.value.exit_code == INTERRUPTED


@pytest.mark.parametrize(
    ("command", "interrupted", "sentence"),
    [
        ("backup", "presque.cli.backup._back_up", "stopped: 0.0 MiB read, no backup was made; run it again"),
        (
            "restore",
            "presque.cli.backup.backups.restore",
            "stopped: 0.0 MiB read; nothing was changed",
        ),
    ],
)
def test_ctrl_c_in_a_backup_says_what_there_is(
    command: str,
    interrupted: str,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "data" / "appendonlydir").mkdir(parents=True)
    (tmp_path / "old").mkdir()

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(interrupted, stop)
    directory = tmp_path / ("new" if command == "backup" else "old")
    assert run([command, str(directory), "--data", str(tmp_path / "data")]) == INTERRUPTED
    assert capfd.readouterr().err == f"presque: {sentence}\n"


# `presque config show`, which gets a SIGINT when it imports a module, or when Python ends.
AT_A_MOMENT = """
import atexit, os, runpy, signal, sys

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == moment:
            os.kill(os.getpid(), signal.SIGINT)

moment = sys.argv.pop(1)
sys.meta_path.insert(0, Interrupts())
if moment == "the end":
    atexit.register(lambda: os.kill(os.getpid(), signal.SIGINT))
sys.argv[1:] = ["config", "show"]
runpy.run_module("presque", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("moment", "code"),
    [
        ("click", -signal.SIGINT),
        ("presque.cli.main", -signal.SIGINT),
        ("presque.cli.config", INTERRUPTED),
        ("the end", -signal.SIGINT),
    ],
)
def test_ctrl_c_makes_no_traceback_at_any_moment(moment: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_A_MOMENT, moment],
        capture_output=True, text=True, timeout=rig.PATIENCE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (code, "")


# A command that gets a SIGINT in a finalizer, where Python drops what is raised, while it imports its module.
IN_A_FINALIZER = """
import os, runpy, signal, sys

class Dropping:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)

class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == moment:
            Dropping()

moment = sys.argv.pop(1)
sys.meta_path.insert(0, Interrupts())
runpy.run_module("presque", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("command", "moment"),
    [
        ("history --watch", "presque.cli.history"),
        ("stats --watch", "presque.cli.queues"),
        ("workers --watch", "presque.cli.worker"),
        ("tail", "presque.cli.streaming"),
        ("history --watch", "encodings.idna"),
    ],
)
def test_ctrl_c_ends_a_command_also_where_python_drops_it(command: str, moment: str) -> None:
    with rig.server("--memory") as server:
        done = subprocess.run(
            [sys.executable, "-c", IN_A_FINALIZER, moment, *command.split(), "--url", server.url],
            capture_output=True, text=True, timeout=rig.PATIENCE, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (INTERRUPTED, "")
