"""JSON that Python alone would not read or write, and answers that have another shape than they should."""

from __future__ import annotations

import json
import sys
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presque.client import Client, ClientError, json_values
from presque.client.call import Answer, Call
from presque.client.calls.taking import Job
from presque.client.json_values import (
    DIGITS_MOST,
    _read_deep,
    checked,
    decoded,
    encoded,
    end_of,
)
from presque.client.leased import Leased, leased

LONG = "9" * 5000
DEEP = "[" * 5000 + "]" * 5000

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values, st.booleans())
def test_the_reader_of_deep_documents_reads_as_python_does(value: Any, spaced: bool) -> None:
    text = json.dumps(value, indent=1 if spaced else None)
    assert _read_deep(text) == json.loads(text)


@given(st.text(alphabet='[]{}",:0123456789.eE+-truefalsn \\ud8', max_size=20))
def test_it_refuses_what_python_refuses(text: str) -> None:
    def read(reader: Any) -> Any:
        try:
            return reader(text)
        except ValueError:
            return "refused"

    assert read(_read_deep) == read(json.loads)


@pytest.mark.parametrize("digits", [4300, 4301, 5000, 99_999, 100_000])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_integer_of_any_length_is_read_and_written_again(digits: int, sign: int) -> None:
    number = sign * (10 ** (digits - 1) + 7)
    text = encoded({"n": [number, 1.5, True, "x"], "m": number})
    assert f'"m":{"-" if sign < 0 else ""}1000' in text
    assert len(text) > 2 * digits
    assert decoded(text) == {"n": [number, 1.5, True, "x"], "m": number}
    assert decoded(text.encode()) == decoded(text)
    assert sys.get_int_max_str_digits() == 4300  # of the process: nobody else is to notice


def test_an_integer_that_would_take_seconds_stays_a_text() -> None:
    text = "7" * 5_000_000
    began = time.process_time()
    assert decoded(f"[{text}, 1]") == [text, 1]
    assert time.process_time() - began < 5  # Python itself takes minutes
    assert isinstance(decoded("7" * DIGITS_MOST), int)


@pytest.mark.parametrize("text", [DEEP, '{"a":' * 5000 + LONG + "}" * 5000, "[" * 900 + LONG + "]" * 900])
def test_a_document_of_any_depth_is_read(text: str) -> None:
    value, depth = decoded(text), 0
    while isinstance(value, list | dict) and value:
        value, depth = (value[0] if isinstance(value, list) else value["a"]), depth + 1
    assert depth in (4999, 5000, 900)
    assert checked(text) == text


@pytest.mark.parametrize(
    "bad", ["", "1,2", "{", "NaN", "-Infinity", "[" * 5000, f"{LONG} {LONG}", DEEP + "]"]
)
def test_what_is_not_one_document_is_refused(bad: str) -> None:
    with pytest.raises(ValueError):
        checked(bad)
    if "N" not in bad and "I" not in bad:
        with pytest.raises(ValueError):
            decoded(bad)


def test_a_value_that_holds_itself_is_refused_with_a_sentence() -> None:
    endless: list[Any] = []
    endless.append(endless)
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    for bad in (endless, deep):
        with pytest.raises(ValueError, match="nested too deep"):
            encoded(bad)


def test_half_of_a_pair_of_surrogates_is_written_as_json_writes_it() -> None:
    assert encoded({"t": "\ud83d é"}) == '{"t":"\\ud83d \\u00e9"}'
    assert encoded("é") == '"é"'


def test_the_value_of_a_fetched_job_is_read_so_too() -> None:
    assert Job("q", "1", LONG).value == int("9" * 4000) * 10**1000 + int("9" * 1000)


# --- the answer to a lease


def answer(*bodies: str) -> bytes:
    jobs = ",".join(
        f'{{"queue":"q","id":"{n}","body":{body},"attempt":1,"max_attempts":5,"priority":5,'
        f'"pushed_at":"p","lease":"t{n}","lease_until":"u","group":"]}}"}}'
        for n, body in enumerate(bodies, 1)
    )
    return f'{{"jobs":[{jobs}],"settled":[{{"queue":"q","id":"0","status":200}}]}}'.encode()


@pytest.mark.parametrize("texts", [True, False])
@pytest.mark.parametrize("odd", [DEEP, LONG, f'{{"a": [{LONG}]}}'])
def test_a_job_that_python_alone_would_not_read_costs_no_other(odd: str, texts: bool) -> None:
    bodies = ['{"a": "]}\\"", "b": [1, {}]}', odd, "null", "-1.5e3", '"\\\\"', "[]", " true "]
    found = leased(answer(*bodies), texts=texts)
    assert [job.id for job in found.jobs] == ["1", "2", "3", "4", "5", "6", "7"]
    assert [job.lease for job in found.jobs] == [f"t{n}" for n in range(1, 8)]
    values = [job.value for job in found.jobs]
    assert [values[0], *values[2:]] == [{"a": ']}"', "b": [1, {}]}, None, -1500.0, "\\", [], True]
    assert type(values[1]) is type(decoded(odd))
    assert found.jobs[1].text == (odd if texts else None)
    assert found.settled == [{"queue": "q", "id": "0", "status": 200}]


@given(st.lists(values, max_size=5), st.booleans(), st.booleans())
def test_jobs_are_found_in_an_answer_as_they_were_pushed(
    pushed: list[Any], spaced: bool, plain: bool
) -> None:
    bodies = [json.dumps(one, indent=1 if spaced else None, ensure_ascii=not plain) for one in pushed]
    found = leased(answer(*bodies), texts=True)
    assert [job.text for job in found.jobs] == bodies
    assert [job.value for job in found.jobs] == [json.loads(one) for one in bodies]


@pytest.mark.parametrize(
    "body", [f'"{"x" * 3_000_000}"', '"' + "\\n" * 1_000_000 + '"', f"[{'[],' * 700_000}1]"]
)
def test_a_job_that_is_long_or_wide_takes_no_more_memory_to_be_found_than_its_value(body: str) -> None:
    text = answer(body).decode()
    at = text.index('"body":') + len('"body":')
    took = []
    for find in (lambda: json.loads(body), lambda: end_of(text, at)):
        tracemalloc.start()
        try:
            found = find()
            took.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert found == at + len(body)
    assert took[1] < took[0] + 100_000


@pytest.mark.parametrize("cut", ['"a', '["a', "[1", "{", '{"a":[]', "", "[[[1]]"])
def test_a_job_that_does_not_end_is_no_leased_job(cut: str) -> None:
    with pytest.raises((ValueError, LookupError)):
        leased(f'{{"jobs":[{{"queue":"q","id":"1","body":{cut}'.encode(), texts=True)


# --- answers of another shape


class Told(Client):
    """A client that is told what the server answers."""

    def __init__(self, body: str, status: int = 200) -> None:
        super().__init__("http://h")
        self.answer = Answer(status, {}, body.encode())

    def perform(self, call: Call[Any]) -> Any:
        return call.read(self.answer)


JOB = json.loads(answer("1"))["jobs"][0]


def lease_of(**fields: Any) -> str:
    return json.dumps({"jobs": [JOB | fields]})


HELD = {"queue": "q", "id": "1", "lease": "t"}


@pytest.mark.parametrize(
    ("method", "arguments", "body"),
    [
        ("push", ("q", 1), '{"id":{}}'),
        ("push", ("q", 1), '{"id":42}'),
        ("push_many", ("q", [1, 2]), '{"ids":["1"]}'),
        ("push_many", ("q", [1, 2]), '{"ids":"12"}'),
        ("fetch_many", ("q", 2), '"no list"'),
        ("fetch_many", ("q", 2), '["1","2","3"]'),
        ("fetch_many", ("q", 2), "[1]"),
        ("lease", ("q",), lease_of(id={})),
        ("lease", ("q",), lease_of(attempt="1")),
        ("lease", ("q",), lease_of(lease=None)),
        ("lease", ("q",), lease_of(group=1)),
        ("lease", ("q",), '{"jobs":{}}'),
        ("lease", ("q",), '{"jobs":[1]}'),
        ("lease", ("q",), '{"jobs":null}'),
        ("lease", ("q",), "[]"),
        ("lease", ("q", 2), json.dumps({"jobs": [JOB] * 3})),
        ("settle_and_lease", ({"ack": [HELD]}, "q"), '{"jobs":[],"settled":[]}'),
        ("settle_and_lease", ({"ack": [HELD]}, "q"), '{"jobs":[]}'),
        ("settle_and_lease", ({"ack": [HELD]}, "q"), '{"jobs":[],"settled":[1]}'),
        ("settle", ({"ack": [HELD]},), '{"settled":[{"status":200},{"status":200}]}'),
        ("settle", ({"ack": [HELD]},), '{"settled":[{"status":"200"}]}'),
        ("settle", ({"ack": [HELD]},), '{"settled":{}}'),
        ("settle", ({"ack": [HELD]},), '{"settled":[{"ids":["1","2"],"status":200}]}'),
        ("settle", ({"ack": [HELD]},), '{"settled":[{"ids":1,"status":200}]}'),
        ("ack", (HELD,), "[]"),
        ("job", ("q", "1"), "{}"),
        ("job", ("q", "1"), '{"queue":"q","id":1,"state":"ready"}'),
        ("jobs", ("q", "dead"), '{"jobs":{},"cursor":null}'),
        ("retry_all", ("q",), '{"retried":"all"}'),
        ("explain", ("q", "1"), '{"reasons":["because"]}'),
        ("info", ("q",), '{"queue_name":"q"}'),
        ("peek", ("q",), '{"jobs":[1]}'),
        ("policy", ("q",), '{"lease":"long"}'),
        ("crons", (), '{"crons":[1]}'),
        ("workers", (), '{"a":1}'),
        ("worker_records", (), '{"workers":[{}]}'),
    ],
)
def test_an_answer_of_another_shape_is_an_error_of_the_client(
    method: str, arguments: tuple[Any, ...], body: str
) -> None:
    with Told(body) as client, pytest.raises(ClientError, match="cannot be read: is there a pres") as caught:
        getattr(client, method)(*arguments)
    assert caught.value.code == "unreadable-answer"


def test_a_repeated_attempt_may_bring_more_jobs_than_are_asked_for_now() -> None:
    body = json.dumps({"jobs": [JOB] * 3})
    assert len(Told(body).lease("q", 1, attempt_id="x")) == 3
    with pytest.raises(ClientError):
        Told(json.dumps({"jobs": [JOB] * 1001})).lease("q", 1, attempt_id="x")


def test_what_a_newer_server_adds_is_let_through() -> None:
    found = leased(lease_of(more={"a": 1}).encode(), texts=False)
    assert isinstance(found, Leased)
    record = Told('{"queue":"q","id":"1","state":"asleep","new":[1]}').job("q", "1")
    assert dict(record)["state"] == "asleep"


def test_a_document_that_no_server_stores_is_refused_and_one_that_it_might_is_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(json_values, "LEVELS_READ_MOST", 5000)
    monkeypatch.setattr(json_values, "VALUES_READ_MOST", 10_000)
    value = decoded("[" * 5000 + "]" * 5000)
    for _ in range(4999):
        [value] = value
    assert value == []
    for endless in ("[" * 5001, "[" * 2000 + "1," * 10_000):
        with pytest.raises(ValueError, match="nested too deep"):
            decoded(endless)
