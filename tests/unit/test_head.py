"""The head of a request, its path and its query."""

from __future__ import annotations

from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presque.errors import CallerError
from presque.http import head as heads
from presque.http.head import BadHead, Head

HOST = b"Host: h\r\n"


def read(line: bytes, *headers: bytes) -> Head:
    return heads.read(line + b" HTTP/1.1\r\n" + HOST + b"".join(h + b"\r\n" for h in headers) + b"\r\n")


def test_a_head_is_taken_apart() -> None:
    assert read(b"POST /q/a%2Fb?x=1?2&y", b"X-A: b ", b"x-a:c", b"Content-Length: 12") == Head(
        version="1.1",
        method="POST",
        path="/q/a%2Fb",
        query="x=1?2&y",
        headers={"host": "h", "x-a": "b, c", "content-length": "12"},
        length=12,
        chunked=False,
        keep_alive=True,
        upgrade=False,
        expects_continue=False,
    )


@pytest.mark.parametrize(
    "line", [b"GET /", b"POST /", b"DELETE /", b"HEAD /", b"PUT /", b"PATCH /", b"OPTIONS *"]
)
@pytest.mark.parametrize(
    ("headers", "keep_alive"),
    [
        ([], True),
        ([b"Connection: close"], False),
        ([b"Connection: Close"], False),
        ([b"Connection: x, close"], False),
        ([b"Connection: keep-alive"], True),
        ([b"Connection: close", b"Content-Length: 3"], False),
        ([b"Content-Length: 3", b"Connection: close"], False),
    ],
)
def test_whether_the_connection_stays(line: bytes, headers: list[bytes], keep_alive: bool) -> None:
    assert read(line, *headers).keep_alive is keep_alive


def test_http_1_0_never_stays() -> None:
    assert not heads.read(b"GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive\r\n\r\n").keep_alive


@pytest.mark.parametrize(
    ("header", "field"),
    [
        (b"Transfer-Encoding: Chunked", "chunked"),
        (b"Expect: 100-Continue", "expects_continue"),
        (b"Connection: upgrade\r\nUpgrade: h2c", "upgrade"),
    ],
)
def test_what_a_header_means(header: bytes, field: str) -> None:
    assert getattr(read(b"PUT /", header), field) is True
    assert getattr(read(b"PUT /"), field) is False


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n1", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 64 + b"\r\n", 431),
        (b"", 400),
        (b"\r\n\r\n", 400),
    ],
)
def test_a_head_that_must_not_be_trusted_is_refused(raw: bytes, status: int) -> None:
    with pytest.raises(BadHead) as caught:
        heads.read(raw)
    assert caught.value.status == status
    assert str(caught.value).isprintable()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_head_or_refused(raw: bytes) -> None:
    for tried in raw + b"\r\n\r\n", b"GET / HTTP/1.1\r\nHost: h\r\n" + raw + b"\r\n\r\n":
        try:
            found = heads.read(tried)
        except BadHead:
            continue
        assert "host" in found.headers
        assert not (found.chunked and "content-length" in found.headers)


@given(st.text())
def test_a_part_of_a_path_is_decoded_once(text: str) -> None:
    once = quote(text, safe="")
    assert heads.segment(once) == text
    assert heads.segment(quote(once, safe="")) == once


@pytest.mark.parametrize("raw", ["%ff", "%C3", "%C0%AF", "%ED%A0%80", "a%80"])
def test_a_part_of_a_path_that_is_not_utf_8_is_refused(raw: str) -> None:
    with pytest.raises(CallerError, match="the path is not UTF-8"):
        heads.segment(raw)


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("", {}),
        ("&&", {}),
        ("a=1&b=2", {"a": "1", "b": "2"}),
        ("a", {"a": ""}),
        ("a=", {"a": ""}),
        ("=b", {"": "b"}),
        ("a=b=c", {"a": "b=c"}),
        ("a=x+y%2Bz", {"a": "x y+z"}),
        ("%61=%C3%A9", {"a": "é"}),
        ("a;b=1", {"a;b": "1"}),
        ("a=%zz", {"a": "%zz"}),
    ],
)
def test_a_query_is_taken_apart(query: str, fields: dict[str, str]) -> None:
    assert heads.fields(query) == fields


@given(st.dictionaries(st.text(min_size=1), st.text()))
def test_a_query_says_what_was_written(wanted: dict[str, str]) -> None:
    query = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in wanted.items())
    assert heads.fields(query) == wanted


@pytest.mark.parametrize("query", ["a=1&a=1", "a&%61", "a+b=&a%20b="])
def test_a_field_given_twice_is_refused(query: str) -> None:
    with pytest.raises(CallerError, match="is given twice"):
        heads.fields(query)


@pytest.mark.parametrize("query", ["%ff", "a=%ff", "%C3=1"])
def test_a_query_that_is_not_utf_8_is_refused(query: str) -> None:
    with pytest.raises(CallerError, match="the query is not UTF-8"):
        heads.fields(query)
