"""The OpenAPI document: it is one, it says what is answered, and what it allows does no harm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks

from presque import quantities
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


OF_A_TEST_CLOCK = ("clock", "move_clock")  # see test_clock.py
OF_TOKENS = (
    *("new_token", "tokens", "revoke_token", "audit", "link", "login", "logout"),
    *("new_namespace", "namespaces", "namespace", "change_namespace", "delete_namespace"),
)
"""Theirs are in test_tokens.py and test_namespaces.py: a server with a token is closed to all other tests."""
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
    kind = (
        "application/problem+json"
        if VERBS[scenario.verb].problem and answer.status >= 400
        else "application/json"
    )
    assert answer.headers["content-type"] == kind
    check(said["content"][kind]["schema"], answer.json)
    required = {name for name, header in said.get("headers", {}).items() if header["required"]}
    assert {name for name in required if name.lower() not in answer.headers} == set()


def test_every_verb_has_a_real_answer_of_every_status_that_it_can_have() -> None:
    """Those that any request may get are in test_raw_requests.py; a full store (507) is in tests/faults/."""
    seen = {(one.verb, one.status) for one in ROUTED}
    for verb in VERBS.values():
        if verb.route is None or verb.name in (
            "commands",
            "stream",
            "events",
            "export",
            "openapi",
            "metrics",
        ):
            continue
        if verb.name in (*OF_TOKENS, *OF_A_TEST_CLOCK):
            continue
        assert {(verb.name, status) for status in (verb.status, *verb.refuses)} - seen <= {
            (verb.name, 507),
            ("job", 410),
            ("run_cron", 409),
            ("resume_cron", 409),
        }, verb.name


# --- whatever the document allows, and what it does not


STAY_OPEN = ("GET /c/{queue}", "GET /events")
EXAMPLES_EACH = 6
LONGEST_WAIT_S = 0.02

OPERATIONS: dict[str, APIOperation[Any, Any, Any, Any]] = {
    found.ok().label: found.ok()
    for found in schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()
    if isinstance(found, Ok)
}


@pytest.fixture(scope="module")
def strained() -> Iterator[rig.Server]:
    """A server that is asked everything, so not the one that others share."""
    with rig.server("--memory") as found:
        yield found
        assert [line for line in found.everything if "Traceback" in line] == []


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as found:
        yield found


def test_every_operation_is_understood() -> None:
    assert set(OPERATIONS) == {
        f"{method.upper()} {path}" for path, one in DOCUMENT["paths"].items() for method in one
    }


def asked_for() -> Iterator[tuple[str, GenerationMode]]:
    """Each operation as it may be asked, and as it may not if it takes anything."""
    for label in sorted(OPERATIONS.keys() - set(STAY_OPEN)):
        yield label, GenerationMode.POSITIVE
        said = OPERATIONS[label].definition.raw
        if said["parameters"] or "requestBody" in said:
            yield label, GenerationMode.NEGATIVE


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("label", "mode"), list(asked_for()))
def test_no_request_is_answered_outside_of_the_document(
    strained: rig.Server, session: requests.Session, label: str, mode: GenerationMode
) -> None:

    @settings(
        max_examples=EXAMPLES_EACH,
        derandomize=True,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(OPERATIONS[label].as_strategy(generation_mode=mode))
    def ask(case: Case[Any]) -> None:
        shorten(case)
        case.call_and_validate(
            base_url=strained.url,
            session=session,
            checks=[
                schemathesis.checks.not_a_server_error,
                checks.status_code_conformance,
                checks.content_type_conformance,
                checks.response_headers_conformance,
                checks.response_schema_conformance,
            ],
        )

    ask()


def shorten(case: Case[Any]) -> None:
    """Let a request that may wait wait so long that the test ends."""
    for holder in (case.query, case.body):
        shorten_in(holder)
    if case.headers and "Prefer" in case.headers:
        case.headers["Prefer"] = "wait=0"


def shorten_in(value: Any) -> None:
    if isinstance(value, list):
        for one in value:
            shorten_in(one)
    elif isinstance(value, dict) and "wait" in value:
        try:
            waits = quantities.seconds(value["wait"])
        except ValueError:
            return
        value["wait"] = min(waits, LONGEST_WAIT_S)
