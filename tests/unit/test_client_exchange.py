"""Answers as a client reads them, from whatever pieces they come in."""

from __future__ import annotations

import time

import pytest

from presque.client.exchange import AnswerReader

ANSWER = b"HTTP/1.1 200 OK{end}Content-Length: 2{end}{end}[]"


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_heads_by_the_thousand_cost_the_same_in_one_piece_and_in_many(end: bytes) -> None:
    """Before, what followed a head was looked through once for each."""
    heads = b"HTTP/1.1 100 X" + 2 * end
    data = heads * 20_000 + ANSWER.replace(b"{end}", end)

    def takes_s(size: int) -> float:
        reader, began = AnswerReader(), time.process_time()
        for at in range(0, len(data), size):
            answer = reader.feed(data[at : at + size])
        assert answer is not None
        assert (answer.status, answer.body) == (200, b"[]")
        return time.process_time() - began

    assert takes_s(len(data)) < 5 * takes_s(len(heads))
