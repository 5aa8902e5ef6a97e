"""The files in examples/monitoring/, with the real Prometheus, and what the guide says of the figures."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import rig
from tests.doors.tokens import Guarded, first_token

ROOT = Path(__file__).parents[2]
FILES = ROOT / "examples" / "monitoring"
GUIDE = ROOT / "docs" / "guides" / "monitoring.md"


def promtool(*arguments: str, stdin: bytes = b"") -> str:
    command = [rig.require("promtool"), *arguments]
    done = subprocess.run(command, cwd=FILES, input=stdin, capture_output=True, check=False, timeout=60)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


def test_the_alerts_can_be_read_and_fire_when_they_should() -> None:
    promtool("check", "rules", "alerts.yml")
    promtool("check", "config", "prometheus.yml")
    promtool("test", "rules", "alerts_test.yml")


@pytest.fixture(scope="module")
def scraped(server: rig.Server) -> str:
    """What a server says of whose queues something happened to."""
    server.ask("POST", "/q/monitored", "1")
    server.ask("POST", "/q/monitored", "2")
    job = server.ask("POST", "/q/monitored/lease").json["jobs"][0]
    server.ask("POST", f"/j/monitored/{job['id']}/ack?lease={job['lease']}")
    return server.ask("GET", "/metrics").body.decode()


def test_promtool_finds_nothing_wrong_with_the_figures(scraped: str) -> None:
    assert promtool("check", "metrics", stdin=scraped.encode()) == ""


def names_in(text: str) -> set[str]:
    """The figures that a text speaks of, histograms and counters by their whole name."""
    found = set(re.findall(r"\b(?:presque|process)_[a-z_]+\b", text))
    return {re.sub(r"_(bucket|count|sum)$", "", name) for name in found}


def kinds(scraped: str) -> set[str]:
    return set(re.findall(r"^# TYPE (\S+) ", scraped, re.MULTILINE))


@pytest.mark.parametrize("file", ["alerts.yml", "grafana-dashboard.json"])
def test_the_files_speak_of_no_figure_that_there_is_not(scraped: str, file: str) -> None:
    text = (FILES / file).read_text("utf-8")
    if file == "alerts.yml":
        rules = [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]
        text = " ".join(rule["expr"] for rule in rules)
    spoken = names_in(text)

    assert spoken - kinds(scraped) == set()
    assert len(spoken) > 5


def test_the_guide_has_every_figure_and_no_other(scraped: str) -> None:
    text = GUIDE.read_text("utf-8")
    told = names_in(text) | {
        f"presque_queue{name}" for name in re.findall(r"…(_[a-z_]+)", text)
    } | {name.replace("queue_", "") for name in names_in(text) if name.endswith("_total")}  # fmt: skip
    found = kinds(scraped)
    also = {f"presque_{name}_total" for name in ("done", "failed", "died", "expired")}  # `and so on`

    assert found - told - also == set()
    assert {name for name in names_in(text) if name.startswith("presque_")} - found == set()


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    found = json.loads((FILES / "grafana-dashboard.json").read_text("utf-8"))

    ids = [panel["id"] for panel in found["panels"]]
    assert len(ids) == len(set(ids))
    for panel in found["panels"]:
        assert panel["targets"]
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    flags = "--data", str(tmp_path / "data")
    admin = first_token(*flags)
    with rig.server(*flags, "--workers", "2") as server:
        yield Guarded(server, admin)


@contextlib.contextmanager
def prometheus(config: Path, directory: Path) -> Iterator[int]:
    """The real one, on a port of its own."""
    port = rig.free_port()
    command = [
        rig.require("prometheus"),
        f"--config.file={config}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(rig.PATIENCE)


def asked(port: int, expression: str) -> list[Any]:
    """What Prometheus answers to an expression; nothing while it starts."""
    query = urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}", timeout=10) as answer:
            found: list[Any] = json.load(answer)["data"]["result"]
            return found
    except OSError:
        return []


def test_a_real_prometheus_finds_what_was_pushed(guarded: Guarded, tmp_path: Path) -> None:
    for number in range(7):
        guarded.ask(guarded.admin, "POST", "/q/mail", number)
    token = tmp_path / "presque-token"
    token.write_text(guarded.make("read:*"))
    config = yaml.safe_load((FILES / "prometheus.yml").read_text("utf-8"))
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(FILES / "alerts.yml")]
    [job] = config["scrape_configs"]
    job["static_configs"] = [{"targets": [f"127.0.0.1:{guarded.server.port}"]}]
    job["authorization"] = {"credentials_file": str(token)}
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))

    with prometheus(file, tmp_path) as port:
        [up] = rig.eventually(
            lambda: asked(port, 'up{job="presque"} == 1'), say=lambda: (tmp_path / "log").read_text()[-3000:]
        )
        [pushed] = rig.eventually(lambda: asked(port, 'presque_queue_pushed_total{queue="mail"} == 7'))
        assert rig.eventually(
            lambda: asked(port, 'sum(presque_requests_total{verb="push",status="201"}) == 7')
        )
        assert asked(port, "ALERTS") == []

    assert pushed["metric"]["instance"] == up["metric"]["instance"]


def test_the_number_that_keda_scales_by_is_there(server: rig.Server, queue_name: str) -> None:
    scaled, authentication = yaml.safe_load_all((FILES / "keda.yaml").read_text("utf-8"))
    [trigger] = scaled["spec"]["triggers"]
    path = urllib.parse.urlsplit(trigger["metadata"]["url"]).path.replace("mail", queue_name)
    for number in range(3):
        server.ask("POST", f"/q/{queue_name}", str(number))

    assert trigger["type"] == "metrics-api"
    assert server.ask("GET", path).json[trigger["metadata"]["valueLocation"]] == 3
    assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
