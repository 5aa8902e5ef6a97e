"""What a server refuses, and what a client does before it asks one, the clients for tests refuse as well."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from presque import App, AsyncClient, Client, ClientError
from presque.testing import AsyncInlineClient, InlineClient
from tests import rig

MIB = 1024 * 1024
SOON = datetime.now(UTC) + timedelta(days=1)
PUSHES: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    *[("push", (name, 1), {}) for name in ("q", "", "a b", "é", "x" * 128, "x" * 129, "a*", None)],
    *[("push", ("q", "x" * size), {}) for size in (MIB - 2, MIB - 1)],
    *[("push_many", ("q", ["x" * size] * 2), {}) for size in (MIB // 2 - 9, MIB // 2 - 8)],
    *[("push_many", ("q", [1] * count), {}) for count in (0, 1000, 1001)],
    *[(verb, ("q", [text]), {}) for verb in ("push", "push_many") for text in ("\ud800", "a\udc00", "\\ud8")],
    *[("push_text", ("q", text), {}) for text in ("", "{", '"\\uD800"', '"\\ud83d\\ude00"', '"\\\\ud800"')],
    *[("push_text", ("q", "[" * depth + "]" * depth), {}) for depth in (900, 2000)],
    *[("push_texts", ("q", ["[" * depth + "]" * depth]), {}) for depth in (900, 2000)],
    *[
        (verb, ("q", [1]), {name: value})
        for verb in ("push", "push_many")
        for name in ("idempotency_key", "traceparent", "tracestate")
        for value in ("a b", "a\nb", "é", "x" * 3000, "")
    ],
    *[
        (verb, ("q", [1]), options)
        for verb in ("push", "push_many")
        for options in (
            {"delay": 5, "ttl": 5}, {"delay": 5, "ttl": 6}, {"delay": 0, "ttl": 1}, {"delayed": 5, "ttl": 1},
            {"delayed": SOON, "ttl": "1h"}, {"delayed": SOON, "ttl": "2d"}, {"delay": 1, "delayed": SOON},
        )
    ],
]  # fmt: skip


def refusal(push: Callable[[], Any]) -> tuple[Any, ...]:
    """What a push raises."""
    try:
        push()
    except ClientError as error:
        return type(error), error.status, error.code
    except (ValueError, TypeError) as error:
        return (ValueError, str(error)) if type(error) is ValueError else (type(error),)
    return ()


def shown(value: Any) -> str:
    """The id of a test, which is the same in each process that runs a part of them."""
    return value if isinstance(value, str) else repr(value).replace(repr(SOON), "SOON")[:60]


@pytest.mark.parametrize(("verb", "values", "options"), PUSHES, ids=shown)
def test_both_refuse_the_same(
    server: rig.Server, queue_name: str, verb: str, values: tuple[Any, ...], options: dict[str, Any]
) -> None:
    values = (queue_name if values[0] == "q" else values[0], *values[1:])

    async def on_asyncio(client: AsyncClient) -> None:
        await getattr(client, verb)(*values, **options)

    with Client(server.url) as real:
        expected = refusal(lambda: getattr(real, verb)(*values, **options))
    inline = InlineClient({"*": lambda _: None})
    assert refusal(lambda: getattr(inline, verb)(*values, **options)) == expected
    beside = AsyncInlineClient({"*": lambda _: None})
    assert refusal(lambda: asyncio.run(on_asyncio(beside))) == expected
    if expected:
        assert inline.outcomes == beside.outcomes == []


def test_a_client_names_a_queue_that_is_missing() -> None:
    for client in (Client("http://127.0.0.1:1"), InlineClient({"*": lambda _: None})):
        with pytest.raises(ValueError, match="`queue` is missing"):
            client.push(None, 1)  # type: ignore[arg-type]


def test_tasks_that_run_at_once_are_refused_before_any_runs() -> None:
    app = App()
    ran: list[str] = []

    @app.task
    def note(text: str) -> None:
        ran.append(text)

    async def on_asyncio() -> None:
        await note.apush("x" * MIB)

    pushes: list[Callable[[], object]] = [
        lambda: note.push("x" * MIB),
        lambda: note.push.many([("x" * MIB,), ("a",)]),
        lambda: asyncio.run(on_asyncio()),
    ]
    with app.inline() as inline:
        for push in pushes:
            with pytest.raises(ClientError, match="the body is larger than 1048576 bytes") as raised:
                push()
            assert (raised.value.status, raised.value.code) == (413, "body-too-large")
    assert ran == []
    assert inline.outcomes == []
