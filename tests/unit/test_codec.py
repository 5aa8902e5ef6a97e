"""JSON in and out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presque import codec
from presque.errors import CallerError, NotJson

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_space = st.text(" \t\r\n", max_size=3)


@given(_json, _space, _space, st.booleans())
def test_every_json_document_is_taken(value: Any, before: str, after: str, ascii_only: bool) -> None:
    codec.check(f"{before}{json.dumps(value, ensure_ascii=ascii_only)}{after}".encode())


@given(st.binary(max_size=40) | st.text('{}[],:"\\u0019eE+-.tfn \n\x00é', max_size=12).map(str.encode))
def test_what_is_taken_is_json_to_others_too(body: bytes) -> None:
    try:
        codec.check(body)
    except NotJson:
        return

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    json.loads(body.decode(), parse_constant=refuse)


@pytest.mark.parametrize(
    "body",
    [b"", b" ", b"{", b"NaN", b"[1,]", b"01", b'"\n"', b'"\\x"', b"1 1", b"\xef\xbb\xbf1", b"tru", b'"\x1f"'],
)
def test_what_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(NotJson, match=r"^the body is not JSON: [a-z`]"):
        codec.check(body)


@pytest.mark.parametrize(("body", "at"), [(b'"\xff"', 1), (b'["a","\xc3"]', 6), (b'"\xed\xa0\x80"', 1)])
def test_what_is_not_utf_8_is_refused(body: bytes, at: int) -> None:
    with pytest.raises(NotJson, match=f"the body is not UTF-8: byte {at} cannot be read"):
        codec.check(body)


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":'])
def test_a_body_nested_too_deep_is_refused(opening: bytes) -> None:
    for read in codec.check, codec.decode, codec.decode_batch:
        with pytest.raises(NotJson):
            read(opening * 100_000)
    with pytest.raises(NotJson, match="the body is nested too deep"):
        codec.check(b"[" * 100_000 + b"]" * 100_000)


def test_no_error_quotes_the_body() -> None:
    for body in b'{"secret" nope', b'"secret\xff"', b'{"jobs":"secret"}', b'{"secret":1}':
        with pytest.raises(CallerError) as caught:
            codec.decode_batch(body)
        assert "secret" not in str(caught.value)


@given(st.lists(_json, max_size=5), _space)
def test_a_batch_is_taken_apart_into_its_bytes(values: list[Any], space: str) -> None:
    bodies = [json.dumps(value, indent=1).encode() for value in values]
    gap = space.encode()
    batch = b'{"x":[1],%b"jobs"%b:[%b]}' % (gap, gap, (gap + b"," + gap).join(bodies))
    assert codec.decode_batch(batch) == bodies


@pytest.mark.parametrize(
    "body", [b"[]", b"{}", b"1", b"null", b'{"jobs":{}}', b'{"jobs":null}', b'{"Jobs":[]}']
)
def test_a_batch_without_a_list_is_refused(body: bytes) -> None:
    with pytest.raises(CallerError, match="jobs should be an array of job"):
        codec.decode_batch(body)


@pytest.mark.parametrize("body", [b'{"jobs":[1,2', b'{"jobs":[1,x]}', b'{"jobs":["\xff"]}', b'{"jobs":[1]}x'])
def test_a_batch_that_is_not_json_is_refused(body: bytes) -> None:
    with pytest.raises(NotJson):
        codec.decode_batch(body)


@given(_json)
def test_what_is_written_is_json_without_spaces(value: Any) -> None:
    written = codec.encode(value)
    assert json.loads(written) == value
    assert codec.decode(written) == value
    assert codec.encode({"a": [1, "b"]}) == b'{"a":[1,"b"]}'


@pytest.mark.parametrize("body", [b"{", b'"\xff"', b"nope"])
def test_a_document_that_cannot_be_read_is_refused(body: bytes) -> None:
    with pytest.raises(NotJson, match="the body is not "):
        codec.decode(body)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (rb'"\ud83d"', r"`\ud83d` at byte 1 is half a character"),
        (rb'"\\\ud83d"', r"`\ud83d` at byte 3 is half a character"),
        (rb'["\ud83d\ude00","\ude00"]', r"`\ude00` at byte 17 is half a character"),
        (rb'"\ud83d and more"', r"`\ud83d` at byte 1 is half a character"),
        (rb'"\uzzzz"', "escape"),
        (rb'"\d+"', "at `d+"),
        (rb'["\\ud83d"', "it ends in the middle"),
        (b'{"a":tru}', "`tru}` at byte 5 is not in double quotes"),
        (b'{"a":None}', "`None` at byte 5 is not a word of JSON"),
        (b"a[]=1&b=2", "`a[]=1&b=2` looks like a form"),
        (b'{"a":1,}', "trailing comma"),
        (b"[1 2]", "at `2]`"),
        (b'{"a":"' + b"x" * 100 + b'" y}', "at `y}`"),
    ],
)
def test_what_often_goes_wrong_has_a_sentence_of_its_own(body: bytes, says: str) -> None:
    with pytest.raises(NotJson) as caught:
        codec.check(body)
    assert says in str(caught.value)


def test_no_more_than_a_few_characters_of_a_body_are_quoted() -> None:
    with pytest.raises(NotJson) as caught:
        codec.check(b"{" + b"secret" * 100)
    assert len(str(caught.value)) < 160


def test_half_characters_are_looked_for_in_bounded_time() -> None:
    """Each of these is escaped, so none is the fault; only the first hundred are looked at."""
    with pytest.raises(NotJson, match="it ends in the middle"):
        codec.check(b'"' + rb"\\ud83d" * 100_000)
