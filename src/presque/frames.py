"""WebSocket frames in and out (RFC 6455), for the server and the client. No I/O, standard library only.

Extensions are not negotiated, so a frame is what the RFC's section 5 says and nothing else.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

NORMAL, GOING_AWAY, PROTOCOL_ERROR, UNSUPPORTED, NO_STATUS = 1000, 1001, 1002, 1003, 1005
BAD_DATA, POLICY, TOO_BIG, OUR_FAULT, TRY_LATER = 1007, 1008, 1009, 1011, 1013

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_SENDABLE = {1000, 1001, 1002, 1003, *range(1007, 1015)}


class FrameError(Exception):
    """The peer broke the protocol; `code` is what the close frame says."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Message(NamedTuple):
    """One whole message or control frame. A text is valid UTF-8."""

    opcode: int
    payload: bytes


class Reader:
    """Cuts what arrives into messages.

    `masked` says whether frames must be masked (those of a client) or must not be; no message may be
    larger than `most` bytes, however many frames it comes in.
    """

    def __init__(self, *, masked: bool, most: int) -> None:
        self._masked = masked
        self._most = most
        self._buffer = bytearray()
        self._parts = bytearray()  # of a message in several frames
        self._kind = CONTINUATION  # what that message is, CONTINUATION when there is none

    @property
    def kept(self) -> int:
        """How many bytes it keeps of a message that is not whole."""
        return len(self._buffer) + len(self._parts)

    def feed(self, data: bytes) -> list[Message]:
        """The messages that are whole now. Raises `FrameError`; nothing must be fed after that."""
        buffer = self._buffer
        buffer += data
        found: list[Message] = []
        at, end = 0, len(buffer)
        while end - at >= 2:
            first, second = buffer[at], buffer[at + 1]
            opcode, length, start = first & 0x0F, second & 0x7F, at + 2
            if first & 0x70:
                raise FrameError(PROTOCOL_ERROR, "a reserved bit is set, and no extension was agreed on")
            if (second >= 0x80) is not self._masked:
                raise FrameError(PROTOCOL_ERROR, "frames of a client are masked, those of a server are not")
            if opcode >= CLOSE:
                if opcode > PONG or length > 125 or first < 0x80:
                    raise FrameError(
                        PROTOCOL_ERROR, "control frames must be at most 125 bytes and unfragmented"
                    )
            elif length >= 126:
                wide = 2 if length == 126 else 8
                if end - start < wide:
                    break
                length = int.from_bytes(buffer[start : start + wide], "big")
                start += wide
            if length + len(self._parts) > self._most:
                raise FrameError(TOO_BIG, f"a message has at most {self._most} bytes")
            body = start + 4 if self._masked else start
            if end - body < length:
                break
            payload = bytes(buffer[body : body + length])
            if self._masked:
                payload = mask(payload, bytes(buffer[start:body]))
            at = body + length
            whole = self._whole(opcode, first >= 0x80, payload)
            if whole is not None:
                found.append(whole)
        del buffer[:at]
        return found

    def _whole(self, opcode: int, last: bool, payload: bytes) -> Message | None:
        if opcode >= CLOSE:
            return Message(opcode, payload)
        if (opcode == CONTINUATION) is (self._kind == CONTINUATION) or opcode > BINARY:
            raise FrameError(PROTOCOL_ERROR, "a frame does not continue the message that was begun")
        if opcode != CONTINUATION:
            if last:
                return _checked(opcode, payload)
            self._kind = opcode
        self._parts += payload
        if not last:
            return None
        kind, whole = self._kind, bytes(self._parts)
        self._kind = CONTINUATION
        self._parts.clear()
        return _checked(kind, whole)


def _checked(kind: int, payload: bytes) -> Message:
    if kind == TEXT and not payload.isascii():
        try:
            payload.decode()
        except UnicodeDecodeError:
            raise FrameError(BAD_DATA, "text must be UTF-8") from None
    return Message(kind, payload)


def frame(opcode: int, payload: bytes, key: bytes | None = None) -> bytes:
    """One whole frame; masked with these four bytes if it is a client's."""
    length, bit = len(payload), 0 if key is None else 0x80
    if length < 126:
        head = bytes((0x80 | opcode, bit | length))
    elif length < 65536:
        head = bytes((0x80 | opcode, bit | 126)) + length.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, bit | 127)) + length.to_bytes(8, "big")
    return head + payload if key is None else head + key + mask(payload, key)


def close(code: int, reason: str = "") -> bytes:
    """The payload of a close frame."""
    return code.to_bytes(2, "big") + reason.encode()[:123]


def close_code(payload: bytes) -> int:
    """What a close frame of the peer says. Raises `FrameError` for what none may say."""
    if not payload:
        return NO_STATUS
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not (code in _SENDABLE or 3000 <= code < 5000):
        raise FrameError(PROTOCOL_ERROR, "the code of the close frame is not valid")
    _checked(TEXT, payload[2:])
    return code


def mask(payload: bytes, key: bytes) -> bytes:
    """Mask, or unmask, with these four bytes."""
    length = len(payload)
    repeated = (key * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")).to_bytes(length, "little")


def accept(key: str) -> str | None:
    """What the server answers to a Sec-WebSocket-Key; None if it is none."""
    try:
        nonce = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(nonce) != 16:
        return None
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()
