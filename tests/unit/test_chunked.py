"""The framing of chunked bodies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from presque.http.chunked import Framing
from presque.http.head import BadHead

MOST = 1000


def outcome(pieces: list[bytes], start: int = 0) -> tuple[str, bytes, int | None]:
    """What comes of data that arrives in these pieces."""
    framing, data = Framing(start), b""
    for piece in pieces:
        data += piece
        try:
            if framing.advance(data, MOST):
                return "ended", bytes(framing.body), framing.end
        except BadHead as error:
            return f"refused {error.status}", b"", None
    return "more", b"", None


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"0\r\n\r\n", b""),
        (b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"1\r\na\r\n00002\r\nbc\r\n000\r\n\r\n", b"abc"),
        (b"A\r\n0123456789\r\na\r\n" + b"\r\n" * 6 + b"0\r\n\r\n", b"0123456789" + b"\r\n" * 5),
        (b'3;a=b;c="d e"\r\nabc\r\n0 ; x\r\n\r\n', b"abc"),
        (b"3\r\nabc\r\n0\r\nA: b\r\nC-D:\te\xff\r\n\r\n", b"abc"),
        (b"0\r\n" + b"A: b\r\n" * 16 + b"\r\n", b""),
        (b"3e8\r\n%b\r\n0\r\n\r\n" % (b"x" * MOST), b"x" * MOST),
    ],
)
def test_a_body_ends_where_its_framing_says(data: bytes, body: bytes) -> None:
    assert outcome([data + b"POST"]) == ("ended", body, len(data))
    assert outcome([b"head" + data], start=4) == ("ended", body, 4 + len(data))


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\r\n", 400), (b"g\r\n", 400), (b"0x1\r\n", 400), (b"+1\r\n", 400), (b"-1\r\n", 400),
        (b" 1\r\n", 400),
        (b"1 \r\n", 400), (b"1_0\r\n", 400), (b"100000000\r\n", 400), (b"1\n\r\n", 400), (b"1;\x00\r\n", 400),
        (b"1;\n\r\n", 400), (b"1;\xff\r\n", 400), (b"1\r\nab\r\n", 400), (b"1\r\na\n\r\n", 400),
        (b"1;%b" % (b"a" * 300), 400), (b"1;%b\r\n" % (b"a" * 300), 400), (b"3e9\r\n", 413),
        (b"3e8\r\n%b\r\n1\r\n" % (b"x" * MOST), 413), (b"ffffffff\r\n", 413),
        (b"0\r\n" + b"A: b\r\n" * 17, 400),
        (b"0\r\nA\r\n", 400), (b"0\r\nA b: c\r\n", 400), (b"0\r\n: b\r\n", 400), (b"0\r\nA: \x00\r\n", 400),
        (b"1\n1\n0\n\n", 400), (b"1\r\na\r\n0\n\n", 400), (b"0\r\nA: b\n", 400), (b"\n", 400),
        (b"0\r\n a: b\r\n", 400), (b"0\r\nA: b\n\r\n", 400), (b"0\r\nA: %b\r\n" % (b"b" * 300), 400),
        (b"0\r\nA: %b" % (b"b" * 300), 400), (b"1;ab\r\nx\r\n" * 1000, 413),
        (b"1;%b\r\nx\r\n" % (b"a" * 100) * 100, 413),
    ],
)  # fmt: skip
def test_anything_unusual_is_refused(data: bytes, status: int) -> None:
    assert outcome([data])[0] == f"refused {status}"


_chunks = st.lists(st.binary(min_size=1, max_size=20), max_size=6)
_tail = st.sampled_from([b"", b"X", b"POST /q/a HTTP/1.1\r\n", b"\r\n\r\n"])


def _framed(chunks: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\nA: b\r\n\r\n"


@given(_chunks, _tail, st.data())
def test_a_body_split_at_any_bytes_is_the_same_body(
    chunks: list[bytes], tail: bytes, data: st.DataObject
) -> None:
    framed = _framed(chunks)
    whole = framed + tail
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert outcome(pieces) == outcome([whole]) == ("ended", b"".join(chunks), len(framed))


@given(_chunks)
def test_a_body_that_comes_byte_by_byte_is_the_same_body(chunks: list[bytes]) -> None:
    framed = _framed(chunks)
    assert outcome([framed[at : at + 1] for at in range(len(framed))]) == (
        "ended", b"".join(chunks), len(framed)
    )  # fmt: skip


@given(_chunks)
def test_a_body_without_its_end_is_awaited(chunks: list[bytes]) -> None:
    framed = _framed(chunks)
    for length in range(len(framed)):
        assert outcome([framed[:length]])[0] == "more"


@given(st.binary(max_size=100), st.integers(0, 100))
def test_any_bytes_come_to_the_same_however_they_are_split(data: bytes, cut: int) -> None:
    assert outcome([data[:cut], data[cut:]]) == outcome([data])
