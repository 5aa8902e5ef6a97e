"""The OpenAPI 3.1 document of the HTTP door, made of the rows of verbs.py and the shapes of shapes.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from presque.fields import Field, Kind, object_schema
from presque.shapes import SHAPES, ref
from presque.verbs import VERBS, Verb
from presque.version import __version__

STREAMS = {"lines": "application/x-ndjson", "events": "text/event-stream"}

_ERRORS = {
    "400": "The request is wrong; the text says what to change.",
    "403": "The request comes from a web page of another site, or may not be made.",
    "404": "There is no such thing, or nothing to hand out.",
    "409": "The lease has ended, or the job is in another state.",
    "410": "The job is finished or deleted.",
    "413": "The body is too large.",
    "415": "The body is compressed.",
    "422": "The Idempotency-Key was used for another push.",
    "429": "The queue is as long as its policy allows.",
    "503": "The store is away or does not answer.",
    "507": "The store has no room for another job.",
}
_GENERAL = ("400", "403", "503")
_OF_PUSHES = ("413", "415", "422", "429", "507")


def document() -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, dict[str, Any]] = {}
    for verb in VERBS.values():
        if verb.route is None:
            continue
        operations = paths.setdefault(verb.path.replace("{queues}", "{queue}"), {})
        method = verb.method.lower()
        operations[method] = (
            _merged(operations[method], _operation(verb)) if method in operations else _operation(verb)
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "presque",
            "version": __version__,
            "summary": "A persistent job queue over HTTP.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": SHAPES},
    }


def _operation(verb: Verb) -> dict[str, Any]:
    parameters = [
        *(_parameter(verb.fields[name], "path", name.replace("queues", "queue")) for name in verb.in_path),
        *(_parameter(one, "query") for one in verb.parameters.values()),
        *(_parameter(one, "header") for one in verb.headers.values()),
    ]
    found: dict[str, Any] = {
        "operationId": verb.name,
        "summary": verb.means,
        "tags": [verb.scope],
        "parameters": parameters,
        "responses": _responses(verb),
    }
    body = _body(verb)
    return found if body is None else found | {"requestBody": body}


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Two verbs of one route, told apart by a parameter."""
    known = {parameter["name"] for parameter in one["parameters"]}
    more = [
        {**parameter, "required": False}
        for parameter in other["parameters"]
        if parameter["name"] not in known
    ]
    parameters = [
        parameter if parameter["in"] == "path" else {**parameter, "required": False}
        for parameter in one["parameters"]
    ]
    responses = dict(one["responses"])
    for status, response in other["responses"].items():
        if status in responses and "content" in response and status.startswith("2"):
            schemas = [
                found["content"]["application/json"]["schema"] for found in (responses[status], response)
            ]
            responses[status] = _answer(response["description"], "application/json", {"anyOf": schemas})
    return {
        **one,
        "summary": f"{one['summary'].rstrip('.')}; {other['summary'][:1].lower()}{other['summary'][1:]}",
        "parameters": [*parameters, *more],
        "responses": responses,
    }


def _parameter(field: Field, where: str, name: str = "") -> dict[str, Any]:
    schema = field.schema()
    means = schema.pop("description")
    if field.kind is Kind.FLAG:
        schema = {"enum": ["1", "0", "true", "false"], "type": "string"}
    if field.blank and where == "query":
        schema = {"anyOf": [schema, {"const": ""}]}
    return {
        "name": field.header if where == "header" else name or field.name,
        "in": where,
        "required": where == "path" or (field.required and field.header is None),
        "description": means,
        "schema": schema,
    }


def _body(verb: Verb) -> dict[str, Any] | None:
    if verb.body == "none":
        return None
    if verb.body == "job":
        schema: Mapping[str, Any] = {"description": "The job: any JSON value."}
    elif verb.name == "commands":
        schema = {"anyOf": [{"type": "object"}, {"type": "array"}]}
    elif verb.name == "report":
        schema = {"type": "object"}
    else:
        # What may stand in the query as well is not required in the body.
        inside = [one for one in verb.outside.values() if one.header is None or one.also_query]
        inside = [one for one in inside if verb.body != "raw" or one.name not in verb.parameters]
        schema = object_schema(inside)
        if verb.body == "fields":
            schema = {name: value for name, value in schema.items() if name != "required"}
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if verb.name == "push_many":
        content[STREAMS["lines"]] = {"schema": {"type": "string", "description": "A job a line, any number."}}
    return {"required": verb.body in ("job", "raw"), "content": content}


def _responses(verb: Verb) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if verb.answers in STREAMS:
        found["200"] = _answer(
            "One after the other, as they come.", STREAMS[verb.answers], {"type": "string"}
        )
    elif verb.answers == "nothing":
        found[str(verb.status)] = {"description": "It is done."}
    else:
        found[str(verb.status)] = _answer("It is done.", "application/json", ref(verb.answers))
    if verb.name == "put_cron":
        found["201"] = _answer("It is new.", "application/json", ref("cron"))
    if verb.name == "delete":
        found["202"] = {"description": "It is leased: its holder is told, and it is not tried again."}
    if verb.name == "lease":
        found["204"] = {"description": "There is no job. `Presque-Paused` names queues that are stopped."}
    kind, shape = ("application/problem+json", "problem") if verb.problem else ("application/json", "error")
    for status in (*_GENERAL, *_specific(verb)):
        found[status] = _answer(_ERRORS[status], kind, ref(shape))
    return dict(sorted(found.items()))


def _specific(verb: Verb) -> tuple[str, ...]:
    if verb.scope == "push":
        return _OF_PUSHES
    if verb.takes or verb.name in ("workers", "tell_worker") or verb.name.endswith("cron"):
        return ("404", "413") if verb.body != "none" else ("404",)
    if "id" in verb.fields:
        return ("404", "409", "410", "413", "507")
    return ("413", "507") if verb.body != "none" else ()


def _answer(means: str, kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": means, "content": {kind: {"schema": schema}}}
