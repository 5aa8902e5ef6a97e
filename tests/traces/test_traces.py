"""Traces from the pusher through the server to the worker, as a collector sees them: real processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from presque import Client
from tests import rig
from tests.stories.test_cli import run
from tests.traces.collector import TRACE, Collector
from tests.worker.conftest import Process, starting

PUSHER = """
import sys
from opentelemetry import trace
from presque import Client, traces

traces.set_up("shop")
with Client(sys.argv[1]) as client, trace.get_tracer("shop").start_as_current_span("checkout"):
    exec(sys.argv[2])
traces.shut_down()
"""
MODES = {
    "inline": ("Plain",),
    "threads": ("Plain", "--concurrency", "3"),
    "async": ("Async",),
    "fork": ("Plain", "--fork"),
}
every_mode = pytest.mark.parametrize("mode", MODES)


Start = Callable[..., Process]


@pytest.fixture
def work(traced: rig.Server, jaeger: Collector, queue_name: str, tmp_path: Path) -> Iterator[Start]:
    """Starts workers that make traces."""
    with starting(tmp_path) as start:

        def begin(kind: str, *flags: str, **environment: str) -> Process:
            return start(
                "worker", f"tests.traces.jobs:{kind}", "--queues", queue_name, "--traces", *flags,
                url=traced.url, PRESQUE_URL=traced.url, **jaeger.environment, **environment,
            )  # fmt: skip

        yield begin


def push(server: rig.Server, found: Collector, code: str) -> None:
    """Push in a process of its own, which uses OpenTelemetry."""
    command = [sys.executable, "-c", PUSHER, server.url, code]
    environment = {"PATH": "/usr/bin:/bin", "PRESQUE_URL": server.url, **found.environment}
    subprocess.run(command, check=True, timeout=rig.PATIENCE, env=environment)


@every_mode
def test_a_trace_goes_from_the_pusher_through_the_server_to_the_worker(
    traced: rig.Server, jaeger: Collector, work: Start, queue_name: str, mode: str
) -> None:
    q, then = queue_name, f"{queue_name}-then"
    push(traced, jaeger, f"client.push({q!r}, {{'then': {then!r}}})")
    worker = work(*MODES[mode], "--burst", "--worker-id", "till")
    assert worker.wait() == 0, worker.said()
    checkout, pushed, process, charge, again = jaeger.named(
        "checkout", f"push {q}", f"process {q}", "charge the card", f"push {then}"
    )
    served, served_again = sorted(jaeger.all_named("POST /q/{queue}", 2), key=lambda one: one.began)
    chain = [checkout, pushed, process, charge, again, served_again]
    assert [one.parent for one in chain] == ["", *(one.id for one in chain[:-1])]
    assert served.parent == pushed.id
    assert {one.trace for one in jaeger.spans} == {checkout.trace}
    assert process.links == (pushed.id,)
    assert [one.service for one in (checkout, served, process)] == ["shop", "presque", "presque-worker"]
    assert [one.kind for one in (pushed, served, process)] == ["producer", "server", "consumer"]
    assert pushed.began <= served.began <= served.ended <= pushed.ended <= process.began < process.ended
    assert pushed.about == {
        "messaging.system": "presque",
        "messaging.operation.name": "push",
        "messaging.operation.type": "send",
        "messaging.destination.name": q,
        "messaging.message.id": "1",
        "server.address": "127.0.0.1",
        "server.port": traced.port,
    }
    assert served.about == {
        "http.request.method": "POST",
        "http.route": "/q/{queue}",
        "http.response.status_code": 201,
        "url.path": f"/q/{q}",
        "url.scheme": "http",
        "server.address": "127.0.0.1",
        "server.port": traced.port,
        "presque.verb": "push",
    }
    assert process.about == {
        "messaging.system": "presque",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": q,
        "messaging.message.id": "1",
        "messaging.client.id": "till",
        "messaging.presque.message.delivery_attempt": 1,
        "messaging.presque.outcome": "ack",
    }
    assert not any(one.failed for one in jaeger.spans)


@every_mode
def test_what_vendors_say_of_a_trace_goes_along(
    traced: rig.Server, jaeger: Collector, work: Start, queue_name: str, mode: str
) -> None:
    q, then = queue_name, f"{queue_name}-then"
    code = f"""
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator as W3C
context = W3C().extract({{"traceparent": "{TRACE}-01", "tracestate": "shop=1,vendor=a b"}})
with trace.get_tracer("shop").start_as_current_span("order", context=context):
    client.push({q!r}, {{'then': {then!r}}})
"""
    push(traced, jaeger, code)
    assert work(*MODES[mode], "--burst").wait() == 0
    jaeger.all_named("POST /q/{queue}", 2)
    named = jaeger.named(f"push {q}", "POST /q/{queue}", f"process {q}", "charge the card", f"push {then}")
    assert [one.state for one in named] == ["shop=1,vendor=a b"] * 5
    with Client(traced.url) as client:
        assert client.job(then, "1")["tracestate"] == "shop=1,vendor=a b"


@every_mode
def test_a_failure_is_an_error_of_the_span(
    client: Client, jaeger: Collector, work: Start, queue_name: str, mode: str
) -> None:
    client.push(queue_name, "fail", attempts=1)
    client.push(queue_name, "dead")
    work(*MODES[mode], "--burst").wait()
    spans = {one.about["messaging.message.id"]: one for one in jaeger.all_named(f"process {queue_name}", 2)}
    first, second = spans["1"], spans["2"]
    assert (first.failed, first.said) == (True, "ValueError: no such card")
    assert (first.about["error.type"], first.about["messaging.presque.outcome"]) == ("ValueError", "fail")
    exception = first.events["exception"]
    assert (exception["exception.type"], exception["exception.message"]) == ("ValueError", "no such card")
    assert 'raise ValueError("no such card")' in exception["exception.stacktrace"]
    assert (second.failed, second.said, second.about["error.type"]) == (True, "stolen card", "Dead")


def test_a_job_that_ends_its_process_is_an_error_of_the_span(
    client: Client, jaeger: Collector, work: Start, queue_name: str
) -> None:
    client.push(queue_name, "kill", attempts=1)
    client.push(queue_name, "sleep", attempts=1)
    work("Plain", "--fork", "--timeout", "1", "--burst").wait()
    killed, late = sorted(
        jaeger.all_named(f"process {queue_name}", 2), key=lambda one: one.about["messaging.message.id"]
    )
    assert (killed.failed, killed.about["error.type"]) == (True, "JobKilled")
    assert (late.failed, late.about["error.type"]) == (True, "JobTimeout")


def test_jobs_of_tasks_are_traced_wherever_they_run(
    traced: rig.Server, jaeger: Collector, queue_name: str, tmp_path: Path
) -> None:
    """A worker of many queues forks beside itself for those tasks that ask for it."""
    (tmp_path / "tasks_of_shop.py").write_text(
        "from opentelemetry import trace\nfrom presque import App\n"
        f"app = App(queue={queue_name!r})\n"
        "def span():\n    with trace.get_tracer('shop').start_as_current_span('inner'): pass\n"
        "@app.task\ndef here(): span()\n@app.task(fork=True)\ndef apart(): span()\n"
        "@app.task\nasync def awaited(): span()\n"
    )
    code = f"""
sys.path.insert(0, {str(tmp_path)!r})
import tasks_of_shop as shop
for one in (shop.here, shop.apart, shop.awaited):
    one.push()
"""
    push(traced, jaeger, code)
    with starting(tmp_path) as start:
        worker = start(
            "worker", "tasks_of_shop", "--traces", "--burst", url=traced.url,
            PYTHONPATH=str(tmp_path), **jaeger.environment,
        )  # fmt: skip
        assert worker.wait() == 0, worker.said()
    processes = jaeger.all_named(f"process {queue_name}", 3)
    inner = jaeger.all_named("inner", 3)
    assert {one.parent for one in inner} == {one.id for one in processes}
    assert len({one.trace for one in jaeger.spans}) == 1


def test_programs_get_the_trace_in_their_environment(
    traced: rig.Server, client: Client, jaeger: Collector, queue_name: str, tmp_path: Path
) -> None:
    client.push(queue_name, 1, traceparent=f"{TRACE}-01", tracestate="shop=1")
    client.push(queue_name, 2, attempts=1)
    command = 'echo "$TRACEPARENT" >> traces; echo "$TRACESTATE" >> states; [ "$(cat)" = 1 ]'
    with starting(tmp_path) as start:
        flags = ("work", queue_name, "--exec", f"cd {tmp_path}; {command}", "--burst")
        start(*flags, "--traces", url=traced.url, **jaeger.environment).wait()
    first, second = jaeger.all_named(f"process {queue_name}", 2)
    said = (tmp_path / "traces").read_text().split()
    assert said == [f"00-{one.trace}-{one.id}-01" for one in (first, second)]
    assert first.trace in TRACE
    assert (tmp_path / "states").read_text() == "shop=1\n\n"
    assert (second.failed, second.about["error.type"]) == (True, "exit status 1")
    client.push(queue_name, 1, traceparent=f"{TRACE}-01")
    with starting(tmp_path) as start:
        start(*flags, url=traced.url).wait()
    assert (tmp_path / "traces").read_text().split()[-1] == f"{TRACE}-01"


def test_who_pushes_decides_whether_the_server_makes_spans(
    client: Client, jaeger: Collector, queue_name: str
) -> None:
    for number, flags in enumerate(("00", "01", None)):
        client.push(queue_name, number, traceparent=flags and f"{TRACE}-{flags}")
    client.stats(queue_name)
    [served] = jaeger.named("POST /q/{queue}")
    assert (served.trace, served.parent) == (TRACE[3:35], TRACE[36:])
    assert [one.name for one in jaeger.spans] == ["POST /q/{queue}"]


def test_what_the_server_refuses_is_in_its_span(client: Client, jaeger: Collector, queue_name: str) -> None:
    with pytest.raises(Exception, match="priority"):
        client.push(queue_name, 1, priority=99, traceparent=f"{TRACE}-01")
    rig.eventually(lambda: jaeger.spans)
    [served] = jaeger.spans
    assert (served.about["http.response.status_code"], served.failed) == (400, False)


def test_a_batch_is_one_span_and_a_failed_push_is_an_error(
    traced: rig.Server, jaeger: Collector, queue_name: str
) -> None:
    q = queue_name
    code = f"""
client.push_many({q!r}, [1, 2, 3])
client.push({q!r}, 4, traceparent="{TRACE}-01")
client.jobs({q!r}, "ready")
try:
    client.push({q!r}, 5, priority=99)
except Exception:
    pass
"""
    push(traced, jaeger, code)
    batch, single, wrong = sorted(jaeger.all_named(f"push {q}", 3), key=lambda one: one.began)
    assert batch.about["messaging.batch.message_count"] == 3
    assert (single.kind, single.links) == ("client", (TRACE[36:],))
    assert (wrong.failed, wrong.about["error.type"]) == (True, "invalid-request")
    [checkout] = jaeger.named("checkout")
    [looked] = jaeger.named("GET /j/{queue}")
    assert looked.parent == checkout.id
    with Client(traced.url) as client:
        kept = [client.job(q, str(number)).get("traceparent") for number in range(1, 5)]
    assert kept == [f"00-{batch.trace}-{batch.id}-01"] * 3 + [f"{TRACE}-01"]


def test_a_fleet_makes_spans_in_each_process(jaeger: Collector, queue_name: str) -> None:
    with rig.server("--memory", "--workers", "2", "--traces", **jaeger.environment) as fleet:
        with Client(fleet.url) as client:
            client.push(queue_name, 1, traceparent=f"{TRACE}-01")
        assert fleet.stop() == 0
    jaeger.named("POST /q/{queue}")


def test_the_usual_variables_say_who_and_whether(jaeger: Collector, queue_name: str) -> None:
    for variables, services in (
        ({"OTEL_SERVICE_NAME": "queue-1"}, ["queue-1"]),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=queue-2"}, ["queue-2"]),
        ({"OTEL_SDK_DISABLED": "true"}, []),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, []),
    ):
        jaeger.spans.clear()
        with rig.server("--memory", "--traces", **jaeger.environment, **variables) as server:
            with Client(server.url) as client:
                client.push(queue_name, 1, traceparent=f"{TRACE}-01")
            assert server.stop() == 0
        assert [one.service for one in jaeger.spans] == services, variables


def test_a_collector_that_is_away_holds_nothing_up(queue_name: str, tmp_path: Path) -> None:
    """The server ends within seconds, and its log says why nothing arrives, in JSON as all else."""
    away = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{rig.free_port()}",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }
    with rig.server("--memory", "--traces", "--log-format", "json", **away) as server:
        with Client(server.url) as client:
            client.push(queue_name, 1, traceparent=f"{TRACE}-01")
            client.push(queue_name, "kill", traceparent=f"{TRACE}-01", attempts=1)
            with starting(tmp_path) as start:
                flags = ("worker", "tests.traces.jobs:Plain", "--queues", queue_name, "--traces", "--fork")
                assert start(*flags, "--burst", url=server.url, **away).wait() == 0
        assert server.stop() == 0
    lines = [json.loads(line) for line in server.everything]
    assert any(one["logger"].startswith("opentelemetry") for one in lines), lines


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"OTEL_TRACES_EXPORTER": "jaeger"}, "correct OTEL_TRACES_EXPORTER"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "pip install 'opentelemetry-exporter-otlp-proto-grpc'"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "should be http/protobuf or grpc, not `http/json`"),
        ({"HIDE": "opentelemetry"}, "traces need OpenTelemetry: install it with pip install 'presque[otel]'"),
    ],
)
def test_traces_that_cannot_be_sent_are_refused_with_a_sentence(
    variables: dict[str, str], sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'HIDE' in os.environ:\n"
        "    class No:\n        def find_spec(self, name, *_):\n"
        "            if name.split('.')[0] == 'opentelemetry': raise ModuleNotFoundError(name, name=name)\n"
        "    sys.meta_path.insert(0, No())\n"
    )
    path = {"PYTHONPATH": f"{tmp_path}:{Path.cwd()}"}
    served = run("serve", "--memory", "--port", "0", "--traces", "--log-format", "plain", **variables, **path)
    worked = run("worker", "tests.traces.jobs:Plain", "--queues", "q", "--traces", **variables, **path)
    assert (served.returncode, worked.returncode) == (1, 2)
    assert sentence in served.stderr
    assert sentence in worked.stderr
    assert "Traceback" not in served.stderr + worked.stderr


LOOK = "import sys; print(sorted(one for one in sys.modules if one.startswith('opentelemetry')))"


def test_nothing_is_imported_where_nobody_traces(server: rig.Server, queue_name: str) -> None:
    code = f"""
from presque import Client, Worker
class W(Worker):
    def work(self, job): {LOOK}
with Client({server.url!r}) as client:
    client.push({queue_name!r}, 1)
    W({server.url!r}, queues={queue_name!r}, burst=True).start()
{LOOK}
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=rig.PATIENCE)
    assert done.stdout.split("\n")[:2] == ["[]", "[]"], done.stderr


IN_MEMORY = """
import asyncio, json, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from presque import AsyncClient, Client, Worker

kept = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(kept))
trace.set_tracer_provider(provider)
url, queue = sys.argv[1:]

class Till(Worker):
    def work(self, job):
        trace.get_current_span().set_attribute("shop.order", job)

async def push():
    with trace.get_tracer("shop").start_as_current_span("checkout"):
        async with AsyncClient(url) as client:
            await asyncio.gather(*(client.push(queue, n) for n in range(3)))

asyncio.run(push())
Till(url, queues=queue, burst=True).start()
print(json.dumps([
    [one.name, one.attributes.get("shop.order"), one.context.span_id, one.parent and one.parent.span_id]
    for one in kept.get_finished_spans()
]))
"""


def test_a_program_that_uses_opentelemetry_need_not_say_so_to_presque(
    server: rig.Server, queue_name: str
) -> None:
    """Its own provider gets the spans of the clients and workers in it, whoever the server is."""
    command = [sys.executable, "-c", IN_MEMORY, server.url, queue_name]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    spans: list[Any] = json.loads(said.splitlines()[-1])
    [checkout] = [one for one in spans if one[0] == "checkout"]
    pushes = {one[2]: one[3] for one in spans if one[0] == f"push {queue_name}"}
    processes = {one[3]: one[1] for one in spans if one[0] == f"process {queue_name}"}
    assert set(pushes.values()) == {checkout[2]}
    assert processes.keys() == pushes.keys()
    assert sorted(processes.values()) == [0, 1, 2]


def test_a_worker_that_is_stopped_ends_the_spans_of_its_jobs(
    client: Client, jaeger: Collector, work: Start, queue_name: str
) -> None:
    client.push(queue_name, "sleep")
    worker = work("Plain", "--concurrency", "2", "--grace", "0")
    worker.says("job.started")
    worker.signal(signal.SIGTERM)
    worker.wait()
    [span] = jaeger.named(f"process {queue_name}")
    assert (span.about["messaging.presque.outcome"], span.failed) == ("release", False)
    assert "ended while it ran" in span.about["messaging.presque.reason"]
