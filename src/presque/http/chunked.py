"""Finds the end of a chunked body (RFC 9112, section 7.1), strictly.

It is read here alone.
Anything unusual in the framing is refused, since two readers who disagree about it is how requests are
smuggled.
"""

from __future__ import annotations

import re

from presque.http.head import BadHead, LargeBody

_SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*;[\x20-\x7e\t]*)?\Z").match
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\Z").match
_LINE_MOST = 256
_TRAILERS_MOST = 16
_OVERHEAD_MOST = 8


class Framing:
    """Follows one chunked body through a growing buffer."""

    __slots__ = ("_at", "_closing", "_left", "_start", "_trailers", "body", "end")

    def __init__(self, start: int) -> None:
        self._start = self._at = start
        self._trailers: int | None = None
        self._left = 0  # bytes of a chunk that `take` has not seen
        self._closing = False  # the line end behind a chunk comes next
        self.body = bytearray()
        self.end: int | None = None

    def advance(self, data: bytes | bytearray, most: int) -> bool:
        """Look at what has come so far; True once the body has ended, at `end`, with `body` as its bytes.

        Raises `BadHead` for a framing error, and with status 413 when the body is longer than `most`.
        """
        if len(data) - self._start > _OVERHEAD_MOST * most:
            raise LargeBody("the chunks of the body are too small for what they carry")
        while self.end is None:
            line_end = data.find(b"\r\n", self._at)
            if line_end < 0:
                _check_begun(data[self._at : self._at + _LINE_MOST + 1])
                return False
            line = data[self._at : line_end]
            if self._trailers is not None:
                self._read_trailer(line, line_end)
                continue
            size = self._size(line)
            if size == 0:
                self._trailers = 0
                self._at = line_end + 2
                continue
            if len(self.body) + size > most:
                raise LargeBody(f"the body is larger than {most} bytes")
            after = line_end + 2 + size
            if len(data) < after + 2:
                return False
            if data[after : after + 2] != b"\r\n":
                raise BadHead("a chunk of the body does not end where it says")
            self.body += data[line_end + 2 : after]
            self._at = after + 2
        return True

    def take(self, data: bytearray) -> bytes:
        """Take what has come of the body off the front of a growing buffer, for a body of any length.

        `end` is 0 once it has ended. A chunk need not be there whole. Raises `BadHead` for a framing error.
        """
        taken = bytearray()
        while self.end is None:
            if self._left:
                part = data[: self._left]
                taken += part
                del data[: len(part)]
                self._left -= len(part)
                if self._left:
                    break
                self._closing = True
            if self._closing:
                if len(data) < 2:
                    break
                if data[:2] != b"\r\n":
                    raise BadHead("a chunk of the body does not end where it says")
                del data[:2]
                self._closing = False
            line_end = data.find(b"\r\n")
            if line_end < 0:
                _check_begun(data[: _LINE_MOST + 1])
                break
            line = bytes(data[:line_end])
            del data[: line_end + 2]
            if self._trailers is not None:
                self._read_trailer(line, -2)
            else:
                self._left = self._size(line)
                if not self._left:
                    self._trailers = 0
        return bytes(taken)

    def _read_trailer(self, line: bytes | bytearray, line_end: int) -> None:
        self._at = line_end + 2
        if not line:
            self.end = self._at
            return
        assert self._trailers is not None
        self._trailers += 1
        if self._trailers > _TRAILERS_MOST:
            raise BadHead("the body has too many trailers")
        if _TRAILER(line) is None or len(line) > _LINE_MOST:
            raise BadHead("the body has a trailer that is not a header")

    @staticmethod
    def _size(line: bytes | bytearray) -> int:
        match = _SIZE(line)
        if match is None or len(line) > _LINE_MOST:
            raise BadHead("a chunk of the body has no valid size")
        return int(match[1], 16)


def _check_begun(line: bytes | bytearray) -> None:
    """Raise `BadHead` if this cannot become a line."""
    if len(line) > _LINE_MOST:
        raise BadHead("a line between the chunks of the body is too long")
    if b"\n" in line:
        raise BadHead("the lines between the chunks of the body should end with CR LF")
