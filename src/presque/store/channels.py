"""Messages of the store, on a connection of their own, and who listens to which channel.

Calls and messages have separate connections. The store counts a connection that listens to channels as a
pub/sub client and cuts it when its unread output passes a limit (32 MB unless set otherwise), so answers
must not come over it: they would go with it. A connection for calls is a normal client, without a limit.

To look and not to miss anything: hear, wait until that has begun (`Hearing.begun`), then look. A message may
be read before the answer of a look that was asked before it, since the two come over two connections;
`Hearing.count` shows that there was one.

Nothing is lost silently: after a lost connection, each hearer learns that it may have missed
something as soon as its channel is heard again.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable

from presque.errors import PresqueError, StoreUnavailable
from presque.store.address import Address
from presque.store.greeting import log_in
from presque.store.link import GRACE, Link
from presque.store.wire import PATIENCE, Wire, into

log = logging.getLogger("presque.store")

LINGER_S = 30.0
RETRY_S = 5.0

Told = Callable[[PresqueError | None], None]
"""Gets None once a channel is heard, or why it is not."""


class Hearing:
    """Somebody's wish to hear a channel, until `end`."""

    __slots__ = ("_channel", "_channels", "_ended", "heard", "missed")

    def __init__(
        self,
        channels: Channels,
        channel: _Channel,
        heard: Callable[[bytes], None],
        missed: Callable[[], None],
    ) -> None:
        self._channels = channels
        self._channel = channel
        self._ended = False
        self.heard = heard
        self.missed = missed

    @property
    def on(self) -> bool:
        """Whether messages of the channel come at this moment."""
        return self._channel.on

    @property
    def count(self) -> int:
        """Grows with each message, and each time the channel begins to be heard."""
        return self._channel.count

    def then(self, told: Told) -> None:
        """Call `told` with None when the channel is heard, at once if it is; or with why it is not."""
        if self._channel.on:
            told(None)
        else:
            self._channels.await_begin(self._channel, told)

    async def begun(self) -> None:
        """Return when the channel is heard. Raises `StoreError` if the store refuses that, and
        `StoreUnavailable` if it is away."""
        if not self._channel.on:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._channels.await_begin(self._channel, into(future))
            await future

    def end(self) -> None:
        """Hear no more. Harmless when repeated."""
        if not self._ended:
            self._ended = True
            self._channels.end(self._channel, self)


class _Channel:
    """One channel, and who hears it."""

    __slots__ = ("asked", "begins", "count", "error", "hearings", "name", "on", "owing")

    def __init__(self, name: bytes) -> None:
        self.name = name
        self.hearings: dict[Hearing, None] = {}  # in the order in which they came
        self.begins: list[tuple[float, Told]] = []
        self.asked = False  # the store was asked for it on this connection, and may still answer
        self.on = False
        self.owing = False  # its hearers may have missed something, and must be notified once it is on
        self.error: PresqueError | None = None
        self.count = 0


class Channels(Link):
    """The channels that this process hears, over a connection that comes back by itself."""

    carries = "messages"

    def __init__(self, address: Address) -> None:
        super().__init__(address)
        self._channels: dict[bytes, _Channel] = {}
        self._idle: dict[_Channel, float] = {}
        self._beginning: set[_Channel] = set()
        self._refused: dict[_Channel, float] = {}
        self._refusal_logged = False

    def hear(
        self,
        channel: str,
        heard: Callable[[bytes], None],
        missed: Callable[[], None] = lambda: None,
    ) -> Hearing:
        """Give each message of a sharded channel to `heard`, until the hearing is ended.

        `missed()` is called when the channel is heard again after it was not, and when it is heard after
        somebody was told that it is not. Neither may wait. A channel that nobody hears any more is
        let go after a while, since most are wanted again.
        """
        name = channel.encode()
        found = self._channels.get(name)
        if found is None:
            found = self._channels[name] = _Channel(name)
        hearing = Hearing(self, found, heard, missed)
        found.hearings[hearing] = None
        self._idle.pop(found, None)
        self._subscribe(found)
        return hearing

    def lingers(self, channel: str) -> bool:
        """Whether nobody hears this channel any more, and the store still counts us as a listener."""
        found = self._channels.get(channel.encode())
        return found is not None and found in self._idle

    def hears(self, channel: str) -> bool:
        """Whether messages of a channel come at this moment."""
        found = self._channels.get(channel.encode())
        return found is not None and found.on

    async def caught_up(self) -> None:
        """Return when all messages have been heard that the store had for us before this was called."""
        if self._wire is not None:
            with contextlib.suppress(StoreUnavailable):
                await self._wire.ask("PING")

    def await_begin(self, channel: _Channel, told: Told) -> None:
        """Tell when `channel` is heard, or why not."""
        if channel.error is not None and not channel.asked:
            told(channel.error)
            return
        channel.begins.append((self._clock(), told))
        self._beginning.add(channel)

    def end(self, channel: _Channel, hearing: Hearing) -> None:
        """A hearing has ended."""
        channel.hearings.pop(hearing, None)
        if not channel.hearings:
            self._idle[channel] = self._clock()

    async def close(self) -> None:
        """End the connection. Those still waiting to hear get an error."""
        await super().close()
        for channel in list(self._beginning):
            self._tell(channel, StoreUnavailable(self._why))

    # --- the connection -------------------------------------------------------------------------

    async def _greet(self, wire: Wire) -> None:
        async with asyncio.timeout(PATIENCE):
            await log_in(wire, self.address)

    def _up(self) -> None:
        self._refusal_logged = False
        for channel in list(self._channels.values()):
            if channel.hearings:
                self._subscribe(channel)
            else:
                self._forget(channel)

    def _down(self) -> None:
        self._refused.clear()
        for channel in self._channels.values():
            channel.owing = channel.owing or channel.on
            channel.on = channel.asked = False
            channel.error = None

    def _subscribe(self, channel: _Channel) -> None:
        """Ask the store for a channel, unless it is away: then it is asked when it is back."""
        wire = self._wire
        if wire is None or channel.asked:
            return
        channel.asked = True
        self._refused.pop(channel, None)

        def answered(reply: PresqueError | None) -> None:
            if wire is not self._wire or self._channels.get(channel.name) is not channel:
                return  # that connection is gone, or the channel was let go meanwhile
            if reply is None:
                self._begin(channel)
            else:
                self._refuse(channel, reply)

        wire.subscribe(channel.name, answered)

    def _begin(self, channel: _Channel) -> None:
        channel.on, channel.error = True, None
        channel.count += 1
        missed, channel.owing = channel.owing, False
        self._tell(channel, None)
        if missed:
            for hearing in list(channel.hearings):
                _guard(channel, hearing.missed)

    def _refuse(self, channel: _Channel, error: PresqueError) -> None:
        channel.asked, channel.error = False, error
        self._refused[channel] = self._clock()
        if not self._refusal_logged:
            self._refusal_logged = True
            log.error("store.channel_refused channel=%s reason=%s", channel.name.decode(), error)
        self._tell(channel, error)

    def _tell(self, channel: _Channel, error: PresqueError | None) -> None:
        self._beginning.discard(channel)
        channel.owing = channel.owing or error is not None  # they go on without
        begins, channel.begins = channel.begins, []
        for _, told in begins:
            _guard(channel, told, error)

    def _forget(self, channel: _Channel) -> None:
        self._idle.pop(channel, None)
        self._refused.pop(channel, None)
        self._channels.pop(channel.name, None)

    def message(self, channel: bytes, payload: bytes) -> None:
        """A message arrived on a channel."""
        found = self._channels.get(channel)
        if found is None:
            return
        found.count += 1
        for hearing in list(found.hearings):
            _guard(found, hearing.heard, payload)

    def dropped(self, channel: bytes) -> None:
        """The store ended a subscription by itself: ask again."""
        found = self._channels.get(channel)
        if found is not None and found.on:
            found.on = found.asked = False
            found.owing = True
            self._subscribe(found)

    def _watch(self, now: float) -> None:
        """Unsubscribe what nobody hears, ask again for what was refused, give up on what takes too long."""
        for channel in _older(self._idle, now - LINGER_S):
            self._forget(channel)
            if self._wire is not None and channel.asked:
                self._wire.unsubscribe(channel.name)
        for channel in _older(self._refused, now - RETRY_S):
            self._subscribe(channel)
        if self._wire is None:
            for channel in list(self._beginning):
                if channel.begins[0][0] + GRACE <= now:
                    self._tell(channel, StoreUnavailable(self._why))


def _older(since: dict[_Channel, float], moment: float) -> list[_Channel]:
    """Those from before a moment, of channels in the order of time."""
    return [channel for channel, _ in itertools.takewhile(lambda one: one[1] <= moment, since.items())]


def _guard(channel: _Channel, do: Callable[..., None], *args: object) -> None:
    """Call somebody who hears. What one raises reaches no other."""
    try:
        do(*args)
    except Exception:
        log.exception("store.hearer_failed channel=%s", channel.name.decode())
