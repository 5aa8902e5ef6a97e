"""The shapes of the answers, as JSON Schema (2020-12), by the names that verbs/ uses: a file a subject.

They are the part of the OpenAPI document that says what comes back. Tests compare them with real answers. An
object is open where later versions may add members (`more`), else closed.
"""

from __future__ import annotations

from typing import Any

from presque.shapes import access, jobs, leases, many_jobs, queues, server, workers
from presque.shapes.schema import Schema

_SUBJECTS = (jobs, leases, many_jobs, queues, workers, server, access)

SHAPES: dict[str, Schema] = {name: shape for one in _SUBJECTS for name, shape in one.SHAPES.items()}
"""Every shape by its name. Streams and answers without a body have none."""

EXAMPLES: dict[str, Any] = {name: example for one in _SUBJECTS for name, example in one.EXAMPLES.items()}
"""Examples of the shapes, for people."""
