"""The OpenAPI document: it is one, it says what is answered, and what it allows does no harm."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from presque.openapi import document
from presque.shapes import EXAMPLES, SHAPES
from presque.verbs import VERBS
from tests import rig
from tests.doors.scenarios import SCENARIOS, Scenario, World

DOCUMENT: dict[str, Any] = document()
DATED = jsonschema.FormatChecker(["date-time"])


def check(schema: Any, value: Any) -> None:
    """Fail unless a value is as a schema of the document says."""
    whole = {**schema, "components": DOCUMENT["components"]}
    Draft202012Validator(whole, format_checker=DATED).validate(value)


def operation_of(name: str) -> Any:
    """What the document says of a verb."""
    verb = VERBS[name]
    return DOCUMENT["paths"][verb.path.replace("{queues}", "{queue}")][verb.method.lower()]


def response_of(name: str, status: int) -> Any:
    """What the document says of one answer to a verb."""
    found = operation_of(name)["responses"][str(status)]
    if "$ref" in found:
        found = DOCUMENT["components"]["responses"][found["$ref"].rpartition("/")[2]]
    return found


# --- the document by itself


def test_the_document_is_one_of_openapi_3_1() -> None:
    validate(DOCUMENT)


def test_the_server_hands_it_out(server: rig.Server) -> None:
    assert server.ask("GET", "/openapi.json").json == json.loads(json.dumps(DOCUMENT))


def references(within: Any) -> set[str]:
    if isinstance(within, dict):
        found = {within["$ref"]} if isinstance(within.get("$ref"), str) else set()
        return found.union(*(references(one) for one in within.values()))
    return set().union(*(references(one) for one in within)) if isinstance(within, list) else set()


def test_every_shape_is_used_and_every_reference_leads_somewhere() -> None:
    parts = DOCUMENT["components"]
    there = {f"#/components/{kind}/{name}" for kind, named in parts.items() for name in named}
    unused = {"#/components/responses/" + name for name in parts["responses"]}  # not each has both kinds
    assert references(DOCUMENT) - there == set()
    assert there - references(DOCUMENT) - unused == set()


def test_every_verb_with_a_route_is_in_it_and_described() -> None:
    named = {one["operationId"] for path in DOCUMENT["paths"].values() for one in path.values()}
    assert named == {verb.name for verb in VERBS.values() if verb.route} - {"info"} | {"jobs"}
    for path in DOCUMENT["paths"].values():
        for one in path.values():
            assert one["summary"].endswith(".")
            assert all(parameter["description"] for parameter in one["parameters"])


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_the_example_of_a_shape_is_of_that_shape(name: str) -> None:
    check(SHAPES[name], EXAMPLES[name])


def test_the_example_of_a_body_is_one() -> None:
    for path in DOCUMENT["paths"].values():
        for one in path.values():
            for content in one.get("requestBody", {"content": {}})["content"].values():
                check(content["schema"], content["example"])


# --- real answers


ROUTED = [one for one in SCENARIOS if VERBS[one.verb].route is not None]


@pytest.mark.parametrize("scenario", ROUTED, ids=lambda one: one.name)
def test_a_real_answer_is_as_the_document_says(server: rig.Server, scenario: Scenario) -> None:
    world = World(server)
    answer = world.ask(scenario.verb, worker=scenario.worker, **scenario.before(world))
    assert answer.status == scenario.status, answer
    said = response_of(scenario.verb, answer.status)
    if "content" not in said:
        assert answer.body == b""
        return
    [(kind, content)] = said["content"].items()
    assert answer.headers["content-type"] == kind
    check(content["schema"], answer.json)
    required = {name for name, header in said.get("headers", {}).items() if header["required"]}
    assert {name for name in required if name.lower() not in answer.headers} == set()


def test_every_verb_has_a_real_answer_of_every_status_that_it_can_have() -> None:
    """Those that any request may get are in test_raw_requests.py; a full store (507) is in tests/faults/."""
    seen = {(one.verb, one.status) for one in ROUTED}
    for verb in VERBS.values():
        if verb.route is None or verb.name in ("commands", "stream", "events", "openapi"):
            continue
        assert {(verb.name, status) for status in (verb.status, *verb.refuses)} - seen <= {
            (verb.name, 507),
            ("job", 410),
            ("run_cron", 409),
            ("resume_cron", 409),
        }, verb.name
