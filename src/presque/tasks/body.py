"""The body of a task's job: which task, with which arguments. Any language can write it:

    {"task": "myapp.tasks.send", "args": ["ana@example.org"], "kwargs": {"text": "hi"}}

`args` and `kwargs` may be left out. `version` is there for other versions than the first, `cron` says which
module has declared the recurring job that pushed it. What else stands there is ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from presque.quantities import quoted

EXAMPLE = '{"task": "myapp.tasks.send", "args": [], "kwargs": {}}'


class NoTask(ValueError):
    """The body of a job is not that of a task."""


class Call(NamedTuple):
    """What a body asks for: the values as JSON has them."""

    name: str
    version: int
    args: Sequence[Any]
    kwargs: Mapping[str, Any]


def written(
    name: str, version: int, args: Sequence[Any], kwargs: Mapping[str, Any], cron: str | None = None
) -> dict[str, Any]:
    """The body that asks for a call."""
    body: dict[str, Any] = {"task": name, "args": args, "kwargs": kwargs}
    if version != 1:
        body["version"] = version
    if cron is not None:
        body["cron"] = cron
    return body


def read(value: Any) -> Call:
    """The call that a body asks for. Raises `NoTask` with a sentence."""
    if type(value) is not dict or type(value.get("task")) is not str:
        raise NoTask(f"the job is not a task: its body should look like {EXAMPLE}")
    args, kwargs, version = value.get("args", []), value.get("kwargs", {}), value.get("version", 1)
    if type(args) is not list:
        raise NoTask(f"`args` should be a list, not {quoted(args)}")
    if type(kwargs) is not dict:
        raise NoTask(f"`kwargs` should be an object, not {quoted(kwargs)}")
    if type(version) is not int:
        raise NoTask(f"`version` should be a whole number, not {quoted(version)}")
    return Call(value["task"], version, args, kwargs)
