"""The socket around a session: the handshake, frames, heartbeats, and a polite end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from presque import frames, names
from presque.commands.call import Service, Undo
from presque.commands.messages import Asker, Handshake
from presque.commands.outgoing import Outgoing
from presque.errors import CallerError, TokenMissing
from presque.frames import FrameError, Message
from presque.verbs import LIVE_COMMANDS
from presque.ws.session import Session

HEARTBEAT_S = 20.0
GOODBYE_S = 2.0
HELLO_WITHIN_S = 10.0
JUDGE_S = 0.1
"""Timers may come before sockets: if presque itself did not run, what its client has sent is read first."""
HELLO_MOST = 16 * 1024  # bytes of a message of somebody who has not said yet who it is
TOO_MANY_BYTES = "this server is receiving as many bytes as it allows; try again later"
FRAME_SPARE = 64 * 1024  # what a command may have around a job of the largest size


class Sockets:
    """Makes the sockets of one server."""

    def __init__(self, service: Service, max_body: int) -> None:
        self._service = service
        self._most = max_body + FRAME_SPARE

    def accept(self, asked: Handshake) -> tuple[dict[str, str], Socket]:
        """Check a handshake: the headers of its answer, and the protocol that speaks from then on.

        Raises `CallerError` if it is none.
        """
        headers, queues = asked.headers, asked.queues
        if asked.method != "GET" or headers.get("upgrade", "").strip().lower() != "websocket":
            raise CallerError("this route speaks WebSocket: ask with GET and `Upgrade: websocket`")
        if headers.get("sec-websocket-version", "").strip() != "13":
            raise CallerError("the version of WebSocket spoken here is 13: send `Sec-WebSocket-Version: 13`")
        answer = frames.accept(headers.get("sec-websocket-key", "").strip())
        if answer is None:
            raise CallerError("`Sec-WebSocket-Key` should be 16 bytes in base64")
        for name in asked.fields:
            if name != "worker":
                raise CallerError(f"unknown parameter `{name}`: a socket takes `worker`")
        if queues is not None:
            names.queue_list(queues)
        worker = asked.fields.get("worker") or headers.get("x-presque-workerid")
        if worker is not None:
            names.worker(worker)
        asker = Asker(self._service.of(asked.who), asked.who, worker, queues, LIVE_COMMANDS, asked.source)
        socket = Socket(asker, self._most)
        return {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": answer}, socket


class Socket(asyncio.Protocol):
    """One WebSocket."""

    def __init__(self, asker: Asker, most: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader = frames.Reader(masked=True, most=most)
        self._session = Session(asker, self._send, self._too_slow, self._count)
        self._heard = True
        self._kept = 0  # bytes of a message that has not come whole, and of commands under way
        self._closing = False
        self._beat: asyncio.TimerHandle = self._loop.call_later(HEARTBEAT_S, self._heartbeat)
        self._hello = self._loop.call_later(HELLO_WITHIN_S, self._no_hello)
        self._transport: asyncio.Transport
        self._out: Outgoing
        self.lost: Callable[[], object] = list  # told when the connection has ended
        self.hold: Callable[[int], bool] = _any_number  # told how many bytes are kept

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._out = Outgoing(self._transport.write, self._transport.is_closing)

    def connection_lost(self, _error: Exception | None) -> None:
        self._beat.cancel()
        self._hello.cancel()  # it would keep all of this until then
        self._session.end(lost=not self._closing)
        self._closing = True
        self._out.end()
        self.lost()

    def reconsider(self) -> None:
        """Access tokens may have become invalid: end if ours has."""
        error = self._session.error
        if error is not None:
            self._goodbye(frames.POLICY, str(error))

    def _no_hello(self) -> None:
        self._hello = self._loop.call_later(JUDGE_S, self._anonymous)

    def _anonymous(self) -> None:
        """The client has not said who it is in time."""
        if self._session.anonymous:
            self._goodbye(frames.POLICY, str(TokenMissing()))

    def shutdown(self) -> None:
        """The server is stopping."""
        self._goodbye(frames.GOING_AWAY, "the server is stopping")

    def pause_writing(self) -> None:
        """The client does not read, so neither do we."""
        self._out.stick()
        self._session.pause()
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._out.unstick()
        self._session.resume()
        self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self._heard = True
        if self._closing:
            # Only for the client's own close frame, which ends it all.
            return self._last_words(data)
        try:
            for message in self._reader.feed(data):
                self._message(message)
        except FrameError as error:
            self._goodbye(error.code, str(error))
        self._count()
        if self._session.full and not self._out.stuck and not self._closing:
            self._transport.pause_reading()
            self._loop.call_soon(self._read_again)
        return None

    def _count(self) -> None:
        """Tell how many bytes are kept of messages."""
        if self._closing:
            return
        if self._session.anonymous:  # it has little room, and takes none from others
            if self._reader.kept > HELLO_MOST:
                self._too_much(frames.TOO_BIG, "log in before you send that much")
            return
        before, self._kept = self._kept, self._reader.kept + self._session.kept
        if self._kept != before and not self.hold(self._kept) and self._kept > before:
            self._too_much(frames.TRY_LATER, TOO_MANY_BYTES)

    def _too_much(self, code: int, reason: str) -> None:
        """The client has sent too much: keep nothing of it, and end."""
        self._goodbye(code, reason)
        self._transport.pause_reading()
        self._reader = frames.Reader(masked=True, most=0)
        self.hold(0)

    def _read_again(self) -> None:
        if self._session.full:
            self._loop.call_later(0.005, self._read_again)
        elif not self._out.stuck and not self._transport.is_closing():
            self._transport.resume_reading()

    def _message(self, message: Message) -> None:
        if self._closing:
            return
        if message.opcode in (frames.TEXT, frames.BINARY):
            self._session.receive(message.payload)
        elif message.opcode == frames.PING:
            self._out.send(frames.frame(frames.PONG, message.payload))
        elif message.opcode == frames.CLOSE:
            code = frames.close_code(message.payload)
            self._goodbye(frames.NORMAL if code == frames.NO_STATUS else code)
            self._transport.close()

    def _last_words(self, data: bytes) -> None:
        try:
            if any(message.opcode == frames.CLOSE for message in self._reader.feed(data)):
                self._transport.close()
        except FrameError:
            self._transport.close()

    def _goodbye(self, code: int, reason: str = "") -> None:
        """Give back what the client holds, tell it why, and close once it has said so too."""
        if self._closing:
            return
        self._closing = True
        self._session.end(lost=False)
        self._beat.cancel()
        self._out.send(frames.frame(frames.CLOSE, frames.close(code, reason)))
        self._out.flush()
        self._beat = self._loop.call_later(GOODBYE_S, self._transport.abort)

    def _too_slow(self) -> None:
        """What is broadcast cannot wait for a client that does not read."""
        self._goodbye(frames.TRY_LATER, "too slow: broadcasts are not buffered")

    def _heartbeat(self) -> None:
        """Every HEARTBEAT_S: a ping; a client that has sent nothing since the last one has gone."""
        if not self._heard:
            self._beat = self._loop.call_later(JUDGE_S, self._judge)
            return
        self._heard = False
        self._out.send(frames.frame(frames.PING, b""))
        self._beat = self._loop.call_later(HEARTBEAT_S, self._heartbeat)

    def _judge(self) -> None:
        if self._heard:
            self._heartbeat()
        else:
            self._transport.abort()

    def _send(self, text: bytes, undo: Undo | None = None) -> None:
        self._out.send(frames.frame(frames.TEXT, text), undo)


def _any_number(_count: int) -> bool:
    return True
