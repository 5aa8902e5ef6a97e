"""Verbs on namespaces: make, list, show, change and delete them.

They are for callers in no namespace. A caller in a namespace sees that one alone.
"""

from __future__ import annotations

from typing import Any

from presque.commands.call import Call, Reply
from presque.commands.times import moment
from presque.commands.who import not_allowed
from presque.engine.namespaces import Usage
from presque.engine.quotas import KINDS, NamespaceRecord, Quotas
from presque.errors import CallerError, NoNamespace
from presque.verbs.bounds import PAGE


async def run_new_namespace(call: Call) -> Reply:
    """Make a namespace."""
    _check_operates(call)
    quotas = Quotas().changed(_quotas(call))
    access = call.service.guard.access
    made = await access.make_namespace(call.fields["namespace"], quotas, call.who.id or None)
    return Reply.of(described(made), headers={"Location": f"/namespaces/{made.name}"})


async def run_namespaces(call: Call) -> Reply:
    """The namespaces by name, a page of them."""
    after, limit = call.get("cursor", ""), call.get("limit", PAGE)
    known = call.service.guard.access.namespaces
    names = sorted(name for name in known if name > after and _sees(call, name))
    page = names[:limit]
    cursor = page[-1] if len(names) > limit else None
    return Reply.of({"namespaces": [described(known[name]) for name in page], "cursor": cursor})


async def run_namespace(call: Call) -> Reply:
    """One namespace, and what there is in it."""
    record = _found(call)
    if record.ending:
        return Reply.of(described(record))
    return Reply.of(described(record, await call.service.guard.namespaces.get(record.name).usage()))


async def run_change_namespace(call: Call) -> Reply:
    """Change the quotas of a namespace."""
    _check_operates(call)
    changes = _quotas(call)
    if not changes:
        raise CallerError(f"give a quota to change: one of {', '.join(f'`{kind}`' for kind in KINDS)}")
    guard = call.service.guard
    changed = await guard.access.change_namespace(
        call.fields["namespace"], lambda record: record.with_quotas(record.quotas.changed(changes))
    )
    guard.namespaces.get(changed.name).bind()
    return Reply.of(described(changed, await guard.namespaces.get(changed.name).usage()))


async def run_delete_namespace(call: Call) -> Reply:
    """Delete a namespace with everything in it: nobody may use it from now on, and its data goes within
    seconds."""
    _check_operates(call)
    ended = await call.service.guard.access.change_namespace(call.fields["namespace"], NamespaceRecord.ended)
    return Reply.of(described(ended))


def _check_operates(call: Call) -> None:
    if not call.who.operates:
        raise NoNamespace(call.fields["namespace"]) if call.who.namespace else not_allowed("admin", "*")


def _sees(call: Call, name: str) -> bool:
    return call.who.namespace is None or call.who.namespace.name == name


def _found(call: Call) -> NamespaceRecord:
    name = call.fields["namespace"]
    record = call.service.guard.access.namespaces.get(name)
    if record is None or not _sees(call, name):
        raise NoNamespace(name)
    return record


def _quotas(call: Call) -> dict[str, int | None]:
    return dict(call.get("quotas") or {})


def described(record: NamespaceRecord, usage: Usage | None = None) -> dict[str, Any]:
    """What is known of a namespace, and what there is in it, as the answers show it."""
    told: dict[str, Any] = {
        "namespace": record.name,
        "quotas": record.quotas.as_dict(),
        "created_at": moment(record.created_at),
        "made_by": record.made_by,
        "deleting": record.ending,
    }
    if usage is not None:
        told["usage"] = {kind: getattr(usage, kind) for kind in ("queues", "jobs", "bytes", "connections")}
    return told
