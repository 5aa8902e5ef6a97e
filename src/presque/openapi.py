"""The OpenAPI 3.1 document of the HTTP door, made of the rows in verbs/ and the shapes in shapes/.

The tests compare it with real answers, and send a running server what it allows and what it does not.
"""

from __future__ import annotations

from typing import Any

from presque.fields import Field, Kind, object_schema
from presque.shapes import EXAMPLES, SHAPES
from presque.shapes.schema import Schema, ref
from presque.verbs import COMMANDS, VERBS
from presque.verbs.bounds import COMMANDS_MOST
from presque.verbs.verb import Verb
from presque.verbs.vocabulary import OF_AN_EXPORT
from presque.version import __version__

JSON, PROBLEM = "application/json", "application/problem+json"
STREAMS = {
    "lines": "application/x-ndjson",
    "exported": "application/x-ndjson",
    "events": "text/event-stream",
}
TEXTS = {"metrics": ("text/plain", "application/openmetrics-text")}
_TRACE = object_schema(VERBS["push"].fields[name] for name in ("traceparent", "tracestate"))["properties"]
REF: Schema = {
    "type": ["string", "number", "boolean", "null"],
    "description": "Comes back in the answer; at most 256 bytes.",
}
SWITCHES = ["true", "false", "yes", "no", "on", "off", "1", "0"]

_ABOUT = """\
Queues exist as soon as a job arrives. `fetch` takes a job for good (at most once), `lease` for a while (at
least once). Every error has a sentence in `error`, and a word that never changes in the header
`Presque-Error`.

Durations are seconds, or texts such as `90s` and `1h30m`. The lengths of texts are counted in bytes of UTF-8.
A field of an object that is null is as if it were not given, except where null is one of its values. What a
body may say may stand in the query instead, unless it is a list, an object or any JSON value. HEAD is allowed
wherever GET changes nothing.

`POST /queue` takes every verb as a JSON command, and so does a WebSocket at `/ws` or `/ws/{queues}`."""

_TAGS = {
    "push": "Put jobs on queues.",
    "fetch": "Take jobs for good.",
    "lease": "Take jobs for a while, and say what became of them.",
    "read": "Look, and change nothing.",
    "control": "Steer queues, jobs and workers.",
    "admin": "Define what pushes jobs by itself; access tokens, the audit, the clock of a server for tests.",
    "any": "What holds other verbs, sessions of browsers, and this document.",
}

_ERRORS = {
    400: "The request is wrong; the sentence says what to change. Nothing was stored.",
    401: "The access token is missing, not valid, or expired.",
    403: "The access token does not allow this, the request comes from a page of another site, or a browser "
    "would take a job.",
    404: "There is no such thing, or nothing to hand out.",
    408: "The request did not arrive in time.",
    409: "The lease has ended, or the job is in another state.",
    410: "The job is finished or deleted.",
    413: "The body is larger than this server takes.",
    415: "The body is compressed.",
    421: "This server does not answer to that host.",
    422: "The Idempotency-Key was used for another push.",
    429: "The queue is as long as its policy allows, or the access token has had all its requests for now.",
    431: "The head of the request is too large.",
    500: "Internal error; see the server log.",
    501: "The body has a Transfer-Encoding other than chunked.",
    503: "The store is not there or does not answer, or the server is stopping.",
    505: "The request is not HTTP/1.1 or HTTP/1.0.",
    507: "The store or its disk has no room for more.",
}
_BEFORE_THE_ROUTE = (400, 408, 413, 431, 501, 503, 505)
"""Those that may come before it is known which route is asked for, so that they are written as on the classic
routes."""
_ANY_REQUEST = (400, 401, 403, 408, 413, 415, 421, 429, 431, 500, 501, 503, 505)

_WORKER = Field(
    name="worker", kind=Kind.WORKER, means="The id of the worker that asks.", header="X-presque-workerid"
)

_BODIES: dict[str, Any] = {
    "push": {"to": "ana@example.org"},
    "put_back": {"to": "ana@example.org"},
    "move_clock": {"advance": "1h"},
    "push_many": {"jobs": [{"to": "ana@example.org"}, {"to": "ben@example.org"}]},
    "lease": {"count": 10, "seconds": 60, "wait": 20},
    "settle": {
        "ack": [{"queue": "mail", "id": "42", "lease": "1-7f3a", "result": {"sent": True}}],
        "fail": [{"queue": "mail", "id": "43", "lease": "1-7f3b", "error": "no such host", "retry_in": "5m"}],
    },
    "ack": {"lease": "1-7f3a", "result": {"sent": True}},
    "fail": {"lease": "1-7f3a", "error": "no such host", "retry_in": "5m"},
    "release": {"lease": "1-7f3a", "delay": 5},
    "extend": {"lease": "1-7f3a", "seconds": 60, "progress": 0.5},
    "change": {"priority": 9},
    "retry_all": {"limit": 100, "rate": 10},
    "import": {"queue": "mail", "body": {"to": "ana@example.org"}, "state": "dead"},
    "new_task": {"act": "retry", "queues": "mail*", "like": "timeout after # s", "rate": 50},
    "change_policy": {"lease": 300, "max_leased": 20, "ttl": None},
    "put_cron": {"queue": "mail", "body": {"report": "daily"}, "schedule": "0 9 * * mon-fri"},
    "control": {"status": "stop"},
    "report": {"queues": ["mail"], "doing": "job 42"},
    "tell_worker": {"worker_id": "worker-1", "status": "quiet"},
    "new_namespace": {"namespace": "acme", "quotas": {"queues": 100, "jobs": 100_000}},
    "change_namespace": {"quotas": {"jobs": 200_000, "requests": None}},
    "new_token": {"name": "mailer", "allow": ["push:mail*", "lease:mail*"], "deny": ["push:mail_secret"]},
    "link": {"allow": "read", "expires": "2031-05-08T09:30:00Z"},
    "login": {"token": "prq_k3vq7xw2np_…"},
    "commands": {"cmd": "push", "queue": "mail", "job": {"to": "ana@example.org"}, "ref": 1},
}
"""An example of each body, for people to copy."""


def document() -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, dict[str, Any]] = {}
    for verb in VERBS.values():
        if verb.route is None:
            continue
        operations = paths.setdefault(_path(verb), {})
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
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": name, "description": means} for name, means in _TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": {
                **{name: _with_example(name, shape) for name, shape in SHAPES.items()},
                **{f"command.{name}": command_schema(verb) for name, verb in COMMANDS.items()},
            },
            "responses": {
                _named(status, problem=problem): _error(status, problem=problem)
                for status in _ERRORS
                for problem in (False, True)
            },
        },
    }


def command_schema(verb: Verb) -> Schema:
    """A verb as a command: an object with `cmd`, the fields and perhaps a `ref`."""
    schema = object_schema(verb.members.values())
    required = [
        name for name in schema.get("required", ()) if verb.without is None or name != verb.without[0]
    ]
    return {
        "type": "object",
        "description": verb.means,
        "properties": {"cmd": {"const": verb.name}, **_TRACE, **schema["properties"], "ref": REF},
        "required": ["cmd", *required],
        "additionalProperties": False,
    }


def _path(verb: Verb) -> str:
    return verb.path.replace("{queues}", "{queue}")  # which is one path to OpenAPI


def _operation(verb: Verb) -> dict[str, Any]:
    parameters = [
        *(_parameter(verb.fields[name], "path", name.replace("queues", "queue")) for name in verb.in_path),
        *(_parameter(one, "query") for one in verb.parameters.values()),
        *(_parameter(one, "header") for one in verb.headers.values()),
    ]
    if verb.worker != "ignored":
        parameters.append(_parameter(_WORKER, "header") | {"required": verb.worker == "required"})
    if verb.name == "fetch":
        prefer = {"type": "string", "examples": ["wait=20"]}
        means = "`wait=20` waits as `wait` does (RFC 7240)."
        parameters.append({"name": "Prefer", "in": "header", "description": means, "schema": prefer})
    found: dict[str, Any] = {
        "operationId": verb.name,
        "summary": verb.means,
        "description": _described(verb),
        "tags": [verb.scope],
        "parameters": parameters,
        "responses": _responses(verb),
    }
    body = _body(verb)
    return found if body is None else found | {"requestBody": body}


def _described(verb: Verb) -> str:
    said = []
    if verb.takes:
        said.append(
            "Takes jobs: a HEAD, a browser that follows a link and a request with a body are refused."
        )
    if verb.streams:
        said.append("The answer stays open until the client leaves or the server stops.")
    elif verb.waits and "wait" in verb.fields:
        said.append("A client that leaves while it waits takes no job.")
    if verb.command:
        said.append(f"As a command: `{verb.name}`.")
    return " ".join(said) or verb.means


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
        if status.startswith("2"):
            schemas = [found["content"][JSON]["schema"] for found in (responses[status], response)]
            responses[status] = _answer(response["description"], JSON, {"anyOf": schemas})
        else:
            responses.setdefault(status, response)
    return {
        **one,
        "summary": f"{one['summary'].rstrip('.')}; {other['summary'][:1].lower()}{other['summary'][1:]}",
        "description": f"{one['description']} {other['description']}",
        "parameters": [*parameters, *more],
        "responses": dict(sorted(responses.items())),
    }


def _parameter(field: Field, where: str, name: str = "") -> dict[str, Any]:
    schema = field.schema()
    means = schema.pop("description")
    if field.kind is Kind.FLAG:
        default = {} if field.default is None else {"default": str(field.default).lower()}
        schema = {"type": "string", "enum": SWITCHES} | default
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
    schema: Schema
    if verb.body == "job":
        schema = {"description": "The job: any JSON value."}
    elif verb.name == "commands":
        command = {"anyOf": [ref(f"command.{name}") for name in COMMANDS]}
        schema = {"anyOf": [command, {"type": "array", "items": command, "maxItems": COMMANDS_MOST}]}
    elif verb.name == "report":
        queues = {"type": "array", "items": {"type": "string"}, "maxItems": 256}
        means = "What the worker is doing, for people who look; at most 16 KiB."
        schema = {"type": "object", "properties": {"queues": queues}, "description": means}
    else:
        inside = [one for one in verb.outside.values() if one.header is None or one.also_query]
        inside = [one for one in inside if verb.body != "raw" or one.name not in verb.parameters]
        schema = object_schema(inside)
        if verb.body == "fields":  # what may stand in the query as well is not required in the body
            needed = [name for name in schema.pop("required", ()) if name not in verb.parameters]
            schema |= {"required": needed} if needed else {}
    example = {"example": _BODIES[verb.name]}
    if verb.name == "import":
        one = {"schema": object_schema(OF_AN_EXPORT), **example}
        many = {"type": "string", "description": "Lines of an export."}
        lines = {"schema": many, "example": '{"queue":"mail","body":1}\n{"queue":"mail","body":2}\n'}
        return {"required": True, "content": {JSON: one, STREAMS["lines"]: lines}}
    content: dict[str, Any] = {JSON: {"schema": schema, **example}}
    if verb.name == "push_many":
        lines = {"type": "string", "description": "A job a line, any number of lines."}
        content[STREAMS["lines"]] = {"schema": lines, "example": '{"to":"ana"}\n{"to":"ben"}\n'}
    required = verb.body in ("job", "raw") and verb.name not in ("settle", "report")
    return {"required": required or "required" in schema, "content": content}


def _responses(verb: Verb) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if verb.answers in STREAMS:
        kind = STREAMS[verb.answers]
        found["200"] = _answer("One after the other, as they come.", kind, {"type": "string"})
    elif verb.answers in TEXTS:
        found[str(verb.status)] = {
            "description": "It is done.",
            "content": {kind: {"schema": ref(verb.answers)} for kind in TEXTS[verb.answers]},
        }
    elif verb.answers == "nothing":
        found[str(verb.status)] = {"description": "It is done."}
    else:
        found[str(verb.status)] = _answer("It is done.", JSON, ref(verb.answers))
    if verb.name == "put_cron":
        found["201"] = _answer("It is new.", JSON, ref("cron"))
    if verb.name == "new_task":
        found["200"] = _answer("A dry run: nothing was begun.", JSON, ref(verb.answers))
    if verb.name == "delete":
        found["202"] = {"description": "It is leased: its holder is notified, and the job is not retried."}
    if verb.name == "lease":
        found["204"] = {"description": "There is no job."}
    for (name, answered), headers in _HEADERS.items():
        if name == verb.name:
            found[answered]["headers"] = headers
    for status in {*_ANY_REQUEST, *verb.refuses}:
        found[str(status)] = {"$ref": f"#/components/responses/{_named(status, problem=verb.problem)}"}
    return dict(sorted(found.items()))


def _answer(means: str, kind: str, schema: Schema) -> dict[str, Any]:
    return {"description": means, "content": {kind: {"schema": schema}}}


def _with_example(name: str, shape: Schema) -> Schema:
    return {**shape, "examples": [EXAMPLES[name]]} if name in EXAMPLES else shape


def _named(status: int, *, problem: bool) -> str:
    return f"problem.{status}" if problem else f"error.{status}"


def _error(status: int, *, problem: bool) -> dict[str, Any]:
    content = {PROBLEM: {"schema": ref("problem")}} if problem else {}
    if not problem or status in _BEFORE_THE_ROUTE:
        content[JSON] = {"schema": ref("error")}
    headers = {"Presque-Error": _header("The error's word, which never changes.", required=True)}
    if status in (429, 503):
        headers["Retry-After"] = _header("After how many seconds to try again.")
    return {"description": _ERRORS[status], "content": content, "headers": headers}


def _header(means: str, *, required: bool = False) -> dict[str, Any]:
    return {"description": means, "required": required, "schema": {"type": "string"}}


_LOCATION = _header("Where the job is.", required=True)
_REPLAYED = _header("`true`: the Idempotency-Key was known, and nothing was stored.")
_HEADERS: dict[tuple[str, str], dict[str, Any]] = {
    ("push", "201"): {"Location": _LOCATION, "Idempotent-Replayed": _REPLAYED},
    ("put_back", "201"): {"Location": _LOCATION, "Idempotent-Replayed": _REPLAYED},
    ("push_many", "201"): {"Idempotent-Replayed": _REPLAYED},
    ("run_cron", "201"): {"Location": _LOCATION},
    ("new_task", "201"): {"Location": _header("Where the task is.", required=True)},
    ("fetch", "200"): {
        "Presque-Queue": _header("The queue that the job was on.", required=True),
        "Presque-Job-Id": _header("The job's id.", required=True),
        "traceparent": _header("As it was pushed."),
        "tracestate": _header("As it was pushed."),
        "Preference-Applied": _header("How long the fetch was ready to wait, if `Prefer` said so."),
    },
    ("lease", "204"): {
        "Presque-Paused": _header("Which of the queues are stopped, 32 of them at most."),
        "Presque-Paused-More": _header("How many more of them are stopped."),
    },
}
