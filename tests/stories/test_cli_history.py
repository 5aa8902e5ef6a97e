"""`presque history` as a person or a script meets it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from presque.cli.history import BARS, WIDEST, spark
from tests.screens import screen
from tests.stories.test_cli import on_terminal, run


@pytest.fixture
def url(server: Any, queue_name: str) -> str:
    """A server with a queue in which something happened."""
    for number in range(4):
        server.ask("POST", f"/q/{queue_name}", str(number))
    server.ask("GET", f"/q/{queue_name}")
    return f"http://127.0.0.1:{server.port}"


def test_on_a_terminal_every_figure_is_a_line_with_a_sparkline(url: str, queue_name: str) -> None:
    code, screen = on_terminal("history", queue_name, "--url", url, "--over", "5m", PYTHONUTF8="1")

    assert code == 0, screen
    lines = {line.split()[0]: line for line in screen.splitlines() if line.strip()}
    assert screen.startswith(f"{queue_name}, over 5m")
    assert lines["pushed"].split()[1] == "4"
    assert lines["fetched"].split()[1] == "1"
    assert lines["ready"].split()[1] == "3"
    assert BARS[-1] in lines["pushed"]
    assert "p50" in lines["wait"]


def test_elsewhere_every_bucket_is_a_line(url: str, queue_name: str) -> None:
    result = run("history", queue_name, "--url", url, "--over", "5m")

    header, *rows = result.stdout.splitlines()
    assert header.split()[:4] == ["at", "pushed", "fetched", "done"]
    assert len(rows) == 30
    assert sum(int(row.split()[1]) for row in rows) == 4
    assert rows == sorted(rows)


def test_json_is_what_the_server_says_of_all_together(url: str, queue_name: str) -> None:
    all_of_them = json.loads(run("history", "--url", url, "--json").stdout)
    own = json.loads(run("history", queue_name, "--url", url, "--json").stdout)

    assert (all_of_them["queue"], all_of_them["over"], len(all_of_them["buckets"])) == (None, "1h", 60)
    assert all_of_them["total"]["pushed"] >= own["total"]["pushed"] == 4


def test_a_slip_in_the_name_is_noticed(url: str, queue_name: str) -> None:
    result = run("history", f"{queue_name}x", "--url", url)

    assert result.returncode == 5
    assert f"there is no queue `{queue_name}x`" in result.stderr


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([0, 0, 0], BARS[0] * 3),
        ([0, 1, 700], BARS[0] + BARS[1] + BARS[-1]),
        ([1.5, 3.0], BARS[4] + BARS[7]),
        ([], ""),
        ([1] * (WIDEST + 1), BARS[-1] * 30 + BARS[4]),
    ],
)
def test_a_sparkline_is_as_high_as_its_largest_value(
    monkeypatch: pytest.MonkeyPatch, values: list[float], line: str
) -> None:
    monkeypatch.setattr("presque.cli.history._has_bars", lambda: True)

    assert spark(values, sum, WIDEST) == line


@pytest.mark.parametrize("wide", [40, 80])
def test_a_sparkline_covers_the_whole_period_in_any_terminal(url: str, queue_name: str, wide: int) -> None:
    """What happened last is at the right end, and nothing is cut off."""
    with screen(
        "history", queue_name, columns=wide, lines=40, at={"PRESQUE_URL": url, "PYTHONUTF8": "1"}
    ) as shown:
        shown.ends()
        lines = {line.split()[0]: line for line in shown.lines if line.strip()}
    bars = lines["pushed"].split()[-1]
    assert set(bars) <= set(BARS)
    assert BARS[-1] in bars[-2:]
    assert len(bars) >= 10
