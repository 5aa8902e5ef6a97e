"""Workers that end when the queues are empty: limits and rates are waited for, and what is left is told."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from presque import Client
from tests.worker.conftest import MODES, Work, counts


@pytest.mark.parametrize("mode", MODES)
def test_a_rate_is_waited_for(work: Work, client: Client, queue_name: str, mode: str) -> None:
    client.change_policy(queue_name, rate={"count": 2, "seconds": 1})
    client.push_many(queue_name, [{}] * 6)
    worker = work(*MODES[mode], "--burst", "--queues", f"{queue_name},nothing-*")
    assert worker.wait() == 0
    assert counts(client, queue_name)["processed"] == 6


def test_a_rate_is_waited_for_by_programs(client: Client, queue_name: str, program: Any) -> None:
    client.change_policy(queue_name, rate={"count": 2, "seconds": 1})
    client.push_many(queue_name, [{}] * 5)
    assert program("true", "--burst").wait() == 0
    assert counts(client, queue_name)["processed"] == 5


def test_a_limit_that_another_worker_fills_is_waited_for(work: Work, client: Client, queue_name: str) -> None:
    client.change_policy(queue_name, max_leased=1)
    client.push_many(queue_name, [{}] * 3)
    [held] = client.lease(queue_name, seconds=600)
    worker = work("Plain", "--burst")
    worker.says("worker.started")
    threading.Timer(1.5, lambda: client.ack(held)).start()
    assert worker.wait() == 0
    assert counts(client, queue_name)["processed"] == 3


def test_what_is_left_is_told(work: Work, client: Client, queue_name: str) -> None:
    stopped = f"{queue_name}-stopped"
    client.push_many(stopped, [1, 2])
    client.stop(stopped)
    client.push(queue_name, {}, delay=600)
    client.push_many(queue_name, [{}] * 2)
    client.lease(queue_name, seconds=600)
    worker = work("Plain", "--burst", "--queues", f"{queue_name}*")
    assert worker.wait() == 0
    worker.says("worker.left_waiting")
    assert "stopped=2 scheduled=1 leased=1" in worker.said()
