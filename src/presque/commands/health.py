"""What a supervisor asks: does the server run, and can it do its work? The answers tell no more than that.

As in Kubernetes: a server that does not live is restarted, one that is not ready gets no requests.
"""

from __future__ import annotations

from collections.abc import Iterator

from presque.commands.call import Call, Reply
from presque.engine.engine import Engine
from presque.errors import NotPermitted, NotReady


async def run_livez(_call: Call) -> Reply:
    """The server runs: it has read this and answers."""
    return Reply.of({"status": "ok"})


async def run_readyz(call: Call) -> Reply:
    """The server can do its work. Raises `NotReady` with the reasons why not."""
    reasons = [reason for reason in _reasons(call.engine) if reason != call.get("exclude")]
    if reasons:
        raise NotReady(reasons)
    return Reply.of({"status": "ready"})


async def run_server(call: Call) -> Reply:
    """How this server process and its store are. Settings are for who may do everything. Raises
    `NotPermitted` for somebody in a namespace: the server is shared with others."""
    if call.who.namespace is not None:
        raise NotPermitted("a token of a namespace cannot see the state of the server")
    facts = await call.service.facts()
    return Reply.of(facts if call.who.allows("admin", "*") else {**facts, "settings": None})


def _reasons(engine: Engine) -> Iterator[str]:
    if engine.stopping:
        yield "draining"
    if not engine.store.connected:
        yield "loading" if engine.store.loading else "store-away"
    if engine.disk.full:
        yield "disk-full"
