"""What a push says of its trace, in the headers or fields of W3C Trace Context.

Who takes the job gets it again as it is, in the head of an answer and within JSON, so only what can be read
is kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

STATE_MOST = 512
"""A longer `tracestate` is left out; the standard asks for at least as much."""

_PARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z").match
_ONE = r"[a-z0-9][a-z0-9_*/@-]{0,255}=[ -+\--<>-~]{0,255}[!-+\--<>-~]"
_STATE = re.compile(rf"{_ONE}(?:[ \t]*,[ \t]*{_ONE}){{0,31}}\Z").match


def trace_context(fields: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The `traceparent` and the `tracestate` of a push. One that cannot be read is left out, as the standard
    asks; so is a `tracestate` without a `traceparent`."""
    parent, state = fields.get("traceparent"), fields.get("tracestate")
    if parent is None or not _PARENT(parent):
        return None, None
    return parent, state if state and len(state) <= STATE_MOST and _STATE(state) else None
