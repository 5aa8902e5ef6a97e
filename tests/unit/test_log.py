"""How log lines look, and that nobody can forge one."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from presque import log
from presque.http.problems import Sums
from tests.asking import soon

store = logging.getLogger("presque.store")


@pytest.fixture(autouse=True)
def _log_of_others() -> Iterator[None]:
    """Leave the process as it was: configure() takes over the root logger."""
    root = logging.getLogger()
    before = root.handlers[:]
    yield
    root.handlers[:] = before


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def plain() -> io.StringIO:
    stream = io.StringIO()
    log.configure("plain", "debug", stream)
    return stream


def as_json() -> io.StringIO:
    stream = io.StringIO()
    log.configure("json", "debug", stream)
    return stream


def test_an_event_is_one_line_for_people() -> None:
    stream = plain()
    store.info("store.started pid=%d dir=%s fsync=always", 12, Path("/x"))
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} info    store\.started pid=12 dir=/x fsync=always\n",
        stream.getvalue(),
    )


@pytest.mark.parametrize("name", ["caf\udce9", "half \ud83d"])
def test_a_name_that_is_no_unicode_is_shown_and_every_line_can_be_sent(name: str) -> None:
    shown = name.encode("utf-8", "backslashreplace").decode()
    stream = as_json()
    store.info("store.started dir=%s", Path(name))
    store.info("store.started dir=%s", name)
    assert [line["dir"] for line in lines(stream)] == [shown, shown]
    stream = plain()
    store.info("store.started dir=%s", Path(name))
    assert shown in stream.getvalue()
    assert stream.getvalue().isascii()


def test_an_event_is_one_object_for_programs_with_typed_fields() -> None:
    stream = as_json()
    store.warning(
        "store.slow pid=%d ms=%.1f path=%s note=%s took=%.0fms ok=%s",
        12,
        3.14159,
        Path("/x"),
        None,
        7.2,
        True,
    )
    [line] = lines(stream)
    moment = datetime.fromisoformat(line.pop("time"))
    assert abs((datetime.now(UTC) - moment).total_seconds()) < 30
    assert line == {
        "level": "warning",
        "event": "store.slow",
        "logger": "presque.store",
        "pid": 12,
        "ms": 3.1,
        "path": "/x",
        "note": None,
        "took": "7ms",
        "ok": True,
    }
    assert re.search(r'"time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"', stream.getvalue())


FORGED = 'a b=1\n2026-01-01 00:00:00.000 info    job.acked id=9\x1b[2J"\u2028\x9b'


def test_a_value_cannot_forge_a_line_or_a_field_for_people() -> None:
    stream = plain()
    store.info("job.failed id=%s error=%s", "7", FORGED)
    [line] = stream.getvalue().splitlines()
    assert line.isprintable()
    assert line.endswith(
        r'job.failed id=7 error="a b=1\n2026-01-01 00:00:00.000 info    job.acked id=9\x1b[2J\"\u2028\x9b"'
    )


def test_a_value_cannot_forge_a_line_or_a_field_for_programs() -> None:
    stream = as_json()
    store.info("job.failed id=%s error=%s time=%s", "7", FORGED, "never")
    [line] = lines(stream)
    assert stream.getvalue().isascii()
    assert line["error"] == FORGED
    assert line["time"] != "never"
    assert set(line) == {"time", "level", "event", "logger", "id", "error"}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("", '""'),
        ("a=b", '"a=b"'),
        ("a\\b", '"a\\\\b"'),
        ("ü", "ü"),
        (None, "-"),
        (False, "false"),
        (b"\xff", '"\\\\xff"'),
    ],
)
def test_a_value_that_would_be_read_wrongly_is_quoted(value: object, shown: str) -> None:
    stream = plain()
    store.info("x.y v=%s", value)
    assert stream.getvalue().endswith(f"x.y v={shown}\n")


def test_a_text_written_with_quotes_is_a_plain_field_for_programs_and_quoted_once_for_people() -> None:
    stream = as_json()
    store.info("store.lost reason=%r carries=%s", "it's away: no answer", "calls")
    [line] = lines(stream)
    assert line["reason"] == "it's away: no answer"
    people = plain()
    store.info("store.lost reason=%r carries=%s", "it's away: no answer", "calls")
    assert people.getvalue().endswith('store.lost reason="it\'s away: no answer" carries=calls\n')


@pytest.mark.parametrize(
    ("message", "arguments", "text"),
    [
        ("Started server process [%d]", (7,), "Started server process [7]"),
        ("no event", (), "no event"),
        ("x.y but prose", (), "x.y but prose"),
        ("100% done", (), "100% done"),
        ("x.y a=%s", (1, 2), "x.y a=%s (1, 2)"),
        ("x.y a=%d", ("text", "more"), "x.y a=%d ('text', 'more')"),
        ("evil %s", ("\nline",), "evil \nline"),
    ],
)
def test_other_messages_are_shown_as_they_are(message: str, arguments: tuple[object, ...], text: str) -> None:
    for_programs = as_json()
    store.info(message, *arguments)
    [line] = lines(for_programs)
    assert (line["event"], line["message"]) == ("log", text)
    for_people = plain()
    store.info(message, *arguments)
    assert for_people.getvalue().endswith(f" info    {log.escaped(text)}\n")


def test_a_traceback_follows_indented_for_people_and_as_a_field_for_programs() -> None:
    for_people, for_programs = plain(), None
    try:
        raise ValueError("bad\n2026-01-01 00:00:00.000 info    forged")
    except ValueError:
        store.exception("sweep.failed queue=%s", "mail")
        for_programs = as_json()
        store.exception("sweep.failed queue=%s", "mail")
    first, *rest = for_people.getvalue().splitlines()
    assert first.endswith("error   sweep.failed queue=mail")
    assert rest
    assert all(line.startswith("    ") for line in rest)
    [line] = lines(for_programs)
    assert (line["event"], line["queue"]) == ("sweep.failed", "mail")
    assert line["traceback"].startswith("Traceback")


def test_auto_is_plain_on_a_terminal_and_json_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    terminal, pipe = Terminal(), io.StringIO()
    log.configure("auto", "info", terminal)
    store.warning("x.y a=1")
    log.configure("auto", "info", pipe)
    store.warning("x.y a=1")
    assert terminal.getvalue().endswith("\x1b[33mwarning\x1b[0m x.y a=1\n")
    assert lines(pipe)[0]["event"] == "x.y"


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    log.configure("auto", "info", terminal)
    store.error("x.y a=1")
    assert "\x1b" not in terminal.getvalue()


def test_the_level_is_for_presque_and_libraries_speak_from_warning_on() -> None:
    stream = io.StringIO()
    log.configure("json", "info", stream)
    store.debug("x.debug")
    store.info("x.info")
    logging.getLogger("library").info("chatter")
    logging.getLogger("library").warning("trouble")
    assert [line.get("message", line["event"]) for line in lines(stream)] == ["x.info", "trouble"]


async def test_lines_of_one_kind_are_summed_up() -> None:
    told: list[tuple[str, int]] = []
    sums = Sums(every_s=0.05)

    def tell(kind: str, text: str) -> None:
        sums.tell(kind, lambda count: told.append((text, count)))

    for number in range(1000):
        tell("full", f"full {number}")
    tell("away", "away")

    assert told == [("full 0", 1), ("away", 1)]
    await soon(lambda: ("full 999", 999) in told)
    tell("full", "full again")
    await soon(lambda: ("full again", 1) in told)
    assert sum(count for text, count in told if text.startswith("full")) == 1001
