"""What a store says about itself when somebody looks, without being used: for `presque doctor`."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Mapping

import hiredis
import msgspec

from presque.errors import SetupError
from presque.store.address import Address
from presque.store.asking import Call
from presque.store.directory import reason_of
from presque.store.greeting import refusal
from presque.store.trust import context_of, sentence

PATIENCE_S = 5.0


class Facts(msgspec.Struct, frozen=True):
    """`info` is what INFO says; `skew_s` by how many seconds the store's clock is ahead of ours; `fsync` how
    soon it writes to its disk, empty if it does not tell."""

    info: Mapping[str, str]
    skew_s: float
    fsync: str

    @property
    def product(self) -> str:
        """Product and version."""
        if "valkey_version" in self.info:
            return f"Valkey {self.info['valkey_version']}"
        return f"Redis {self.info.get('redis_version', '?')}"

    def number(self, name: str) -> int:
        """A number of `info`; 0 if it is missing."""
        text = self.info.get(name, "0")
        return int(text) if text.isdigit() else 0


def look(address: Address) -> Facts:
    """Connect, log in, ask, leave. Raises `SetupError` with a sentence that says what is in the way."""
    try:
        return asyncio.run(_look(address))
    except (TimeoutError, asyncio.IncompleteReadError):
        raise SetupError(f"the store at {address} does not answer within {PATIENCE_S:.0f} s") from None
    except ssl.SSLError as error:
        raise SetupError(f"the store at {address} cannot be reached over TLS: {sentence(error)}") from None
    except OSError as error:
        raise SetupError(
            f"no store at {address}: {reason_of(error)}; start it, or correct the settings"
        ) from None


async def _look(address: Address) -> Facts:
    async with asyncio.timeout(PATIENCE_S):
        if address.unix is not None:
            reader, writer = await asyncio.open_unix_connection(address.unix)
        else:
            context = context_of(address)
            name = address.server_name if context is not None else None
            reader, writer = await asyncio.open_connection(
                address.host, address.port, ssl=context, server_hostname=name
            )
        try:
            call = Call(reader, writer)
            hello = ["HELLO", "2"]
            if address.password is not None:
                hello += ["AUTH", address.username or "default", address.password]
            commands = [hello, *([["SELECT", str(address.db)]] if address.db else []), ["INFO"]]
            for words in commands:
                said = await call.ask(*words)
                if isinstance(said, hiredis.ReplyError):
                    raise SetupError(refusal(str(said), address))
            info = dict(line.split(":", 1) for line in str(said).splitlines() if ":" in line)
            sent = time.time()
            clock = await call.ask("TIME")
            skew = 0.0
            if isinstance(clock, list):
                skew = int(clock[0]) + int(clock[1]) / 1_000_000 - (sent + time.time()) / 2
            setting = await call.ask("CONFIG", "GET", "appendfsync")
            fsync = str(setting[1]) if isinstance(setting, list) and len(setting) == 2 else ""
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    return Facts(info, skew, fsync)
