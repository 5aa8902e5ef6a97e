"""An InlineClient refuses what a server refuses, with the same error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from presque import Client
from presque.client import ClientError
from presque.testing import InlineClient
from tests import rig

WRONG: dict[str, Callable[[Any, str], object]] = {
    "an unknown option": lambda client, q: client.push(q, 1, dellay=5),
    "an option of one for many": lambda client, q: client.push_many(q, [1], uniq="x"),
    "a priority of 0": lambda client, q: client.push(q, 1, priority=0),
    "a priority of 10": lambda client, q: client.push_many(q, [1], priority=10),
    "a priority of 1.5": lambda client, q: client.push(q, 1, priority=1.5),
    "a delay of a century": lambda client, q: client.push(q, 1, delay="5218w"),
    "a ttl of nothing": lambda client, q: client.push(q, 1, ttl=0),
    "no attempts": lambda client, q: client.push(q, 1, attempts=0),
    "an endless keep": lambda client, q: client.push(q, 1, keep=10**9),
    "an empty group": lambda client, q: client.push(q, 1, group=""),
    "a long key": lambda client, q: client.push(q, 1, uniq="x" * 256),
    "uniq until never": lambda client, q: client.push(q, 1, uniq="x", uniq_until="never"),
    "uniq_until alone": lambda client, q: client.push(q, 1, uniq_until="done"),
    "delay and delayed": lambda client, q: client.push(q, 1, delay=1, delayed=10**9),
    "a moment that is none": lambda client, q: client.push(q, 1, delayed="soon"),
    "an empty idempotency key": lambda client, q: client.push(q, 1, idempotency_key=""),
    "a long idempotency key": lambda client, q: client.push(q, 1, idempotency_key="x" * 256),
    "a queue with a space": lambda client, q: client.push("a b", 1),
    "a queue with a slash": lambda client, q: client.push("a/b", 1),
    "a long queue": lambda client, q: client.push("x" * 129, 1),
    "a pattern": lambda client, q: client.push("a*", 1),
    "a queue list": lambda client, q: client.push("a,b", 1),
    "too many": lambda client, q: client.push_many(q, range(1001)),
    "no body": lambda client, q: client.push_text(q, ""),
}
NOT_JSON = {
    "no JSON": lambda client, q: client.push_text(q, "{"),
    "two documents": lambda client, q: client.push_text(q, "1 2"),
    "no UTF-8": lambda client, q: client.push_text(q, b"\xff"),
    "too large": lambda client, q: client.push_text(q, b'"%b"' % (b"x" * 2_000_000)),
}


def refused(call: Callable[[Any, str], object], client: Any, queue: str) -> ClientError:
    with pytest.raises(ClientError) as caught:
        call(client, queue)
    return caught.value


@pytest.mark.parametrize("what", sorted(WRONG))
def test_it_refuses_what_a_server_refuses_with_the_same_error(
    server: rig.Server, queue_name: str, what: str
) -> None:
    with Client(server.url) as client:
        real = refused(WRONG[what], client, queue_name)
    ours = refused(WRONG[what], InlineClient({queue_name: print, "*": print}), queue_name)
    assert (type(ours), ours.status, ours.code, str(ours)) == (
        type(real), real.status, real.code, str(real),
    )  # fmt: skip


@pytest.mark.parametrize("what", sorted(NOT_JSON))
def test_a_body_that_is_refused_has_the_same_status(server: rig.Server, queue_name: str, what: str) -> None:
    with Client(server.url) as client:
        real = refused(NOT_JSON[what], client, queue_name)
    ours = refused(NOT_JSON[what], InlineClient({queue_name: print}), queue_name)
    assert (type(ours), ours.status) == (type(real), real.status)
    assert ours.code == real.code
