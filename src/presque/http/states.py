"""Where a connection stands, and what may follow: a table."""

from __future__ import annotations

from enum import IntEnum


class State(IntEnum):
    """Where a connection stands."""

    IDLE = 1  # nothing of the next request has come
    HEAD = 2  # a part of a head has come
    BODY = 3  # the head is understood, its body has not come whole
    STARTING = 4  # the plan is at work; it may answer before it returns
    SERVING = 5  # an answer is owed
    RECEIVING = 6  # the plan takes the body as it comes
    STREAMING = 7  # the head of an answer without a known end is written
    HELD = 8  # answered, but the client reads so slowly that the next request has to wait
    REFUSED = 9  # refused; what still comes is thrown away for a moment
    CLOSING = 10  # the last answer is on its way
    LOST = 11  # the connection has ended, or speaks another protocol


IDLE, HEAD, BODY, STARTING, SERVING, RECEIVING, STREAMING, HELD, REFUSED, CLOSING, LOST = State

NEXT: dict[State, frozenset[State]] = {
    IDLE: frozenset({HEAD, STARTING, REFUSED, CLOSING, LOST}),
    HEAD: frozenset({IDLE, BODY, STARTING, RECEIVING, REFUSED, CLOSING, LOST}),
    BODY: frozenset({STARTING, RECEIVING, REFUSED, CLOSING, LOST}),
    STARTING: frozenset({SERVING, IDLE, HEAD, HELD, CLOSING, LOST}),
    SERVING: frozenset({STREAMING, IDLE, HEAD, HELD, CLOSING, LOST}),
    RECEIVING: frozenset({SERVING, REFUSED, CLOSING, LOST}),
    STREAMING: frozenset({IDLE, HEAD, HELD, CLOSING, LOST}),
    HELD: frozenset({IDLE, HEAD, CLOSING, LOST}),
    REFUSED: frozenset({CLOSING, LOST}),
    CLOSING: frozenset({LOST}),
    LOST: frozenset(),
}

READING = (IDLE, HEAD, BODY)  # a request may be cut off
OWING = (STARTING, SERVING, RECEIVING)  # an answer is owed and not begun
UNDER_WAY = (*OWING, STREAMING)  # a request is counted
