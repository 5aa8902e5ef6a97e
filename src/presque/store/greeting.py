"""The first words on a new connection: log in, check the store, load the functions."""

from __future__ import annotations

import contextlib
from typing import Any

import msgspec

from presque.errors import SetupError, StoreError, StoreLoading, StoreUnavailable
from presque.store.address import Address
from presque.store.wire import Wire

LIMITS = "client-output-buffer-limit"


class StoreInfo(msgspec.Struct, frozen=True):
    """What the store says of itself."""

    product: str
    version: tuple[int, ...]
    eviction: str
    persistent: bool
    fsync: str
    answers_most: int = 0
    """Bytes of answers that a client may leave unread before it is cut; 0 for no limit, or unknown."""
    replica: bool = False

    def __str__(self) -> str:
        return f"{self.product} {'.'.join(map(str, self.version))}"


class Functions(msgspec.Struct, frozen=True):
    """What is to be loaded into the store: the name of the library and its text."""

    name: str
    source: str


ASKED = ("appendfsync", LIMITS)
"""What is asked of CONFIG beside INFO."""


def info_of(raw: bytes, settings: Any) -> StoreInfo:
    """What INFO and CONFIG GET of `ASKED` have answered; `settings` is None if the store does not tell, as
    managed stores do."""
    text = bytes(raw).decode("utf-8", "replace")
    facts = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    version = facts.get("valkey_version") or facts.get("redis_version", "0")
    try:
        fsync = settings[b"appendfsync"].decode()
        limits = _limits(settings.get(LIMITS.encode(), b"").decode())
    except (KeyError, TypeError, AttributeError):
        fsync, limits = "unknown", {}
    return StoreInfo(
        "Valkey" if "valkey_version" in facts else "Redis",
        tuple(int(part) for part in version.split(".") if part.isdigit()),
        facts.get("maxmemory_policy", "noeviction"),
        facts.get("aof_enabled", "0") == "1",
        fsync,
        limits.get("normal", 0),
        facts.get("role") == "slave",
    )


async def log_in(wire: Wire, address: Address) -> None:
    """Say who we are. Raises `SetupError` if the store does not let us in."""
    hello: list[str] = ["HELLO", "3"]
    if address.password is not None:
        hello += ["AUTH", address.username or "default", address.password]
    try:
        await wire.ask(*hello)
        if address.db:
            await wire.ask("SELECT", address.db)
        await wire.ask("CLIENT", "SETNAME", "presque")
    except StoreError as error:
        raise SetupError(refusal(str(error), address)) from None


async def greet(wire: Wire, address: Address) -> StoreInfo:
    """Log in and learn whom we talk to. Raises `SetupError` for a store that presque must not use."""
    await log_in(wire, address)
    try:
        raw = await wire.ask("INFO")
    except StoreError as error:
        raise SetupError(refusal(str(error), address)) from None
    if b"\r\nloading:1" in bytes(raw):
        raise StoreLoading  # it answers slowly now, so it is not asked for more
    settings: Any = None
    with contextlib.suppress(StoreError):
        settings = await wire.ask("CONFIG", "GET", *ASKED)
    info = info_of(raw, settings)
    if info.product == "Redis" and info.version < (7, 0):
        raise SetupError(f"the store at {address} is {info}: presque needs Redis 7.0 or later, or Valkey")
    if info.eviction != "noeviction":
        raise SetupError(
            f"the store at {address} has maxmemory-policy {info.eviction}, which throws jobs away "
            "when memory is short; set it to noeviction"
        )
    if info.replica:
        raise StoreUnavailable("it is a replica; name its primary")
    return info


def _limits(text: str) -> dict[str, int]:
    """What each class of clients may leave unread, of `class hard soft seconds …`; 0 for no limit."""
    words = text.split()
    return {
        name: min((int(one) for one in (hard, soft) if int(one)), default=0)
        for name, hard, soft in zip(words[::4], words[1::4], words[2::4], strict=True)
    }


def refusal(text: str, address: Address) -> str:
    """A failed login as a sentence that says what to do."""
    text = text.removeprefix("the store answered: ")
    if "unknown command" in text or "NOPROTO" in text:
        return f"the store at {address} is too old: presque needs Redis 7.0 or later, or Valkey"
    if "WRONGPASS" in text or "NOAUTH" in text or "AUTH" in text:
        return f"the store at {address} rejected the login: check user and password"
    if "DB index" in text:
        return f"the store at {address} has no database {address.db}"
    if "NOPERM" in text:
        return f"the store at {address} does not allow its user enough: {text}"
    return f"the store at {address} refused: {text}"


async def load(wire: Wire, functions: Functions) -> None:
    """Load the functions unless exactly these are there. Same version means same contract, so another
    build of it may be replaced under a server that runs."""
    try:
        found = await wire.ask("FUNCTION", "LIST", "LIBRARYNAME", functions.name, "WITHCODE")
        if found and _code(found[0]) == functions.source.encode():
            return
        await wire.ask("FUNCTION", "LOAD", "REPLACE", functions.source)
    except StoreError as error:
        raise SetupError(f"the store does not accept presque's functions: {error}") from None


def _code(entry: Any) -> bytes:
    if not isinstance(entry, dict):
        entry = dict(zip(entry[::2], entry[1::2], strict=True))
    return bytes(entry.get(b"library_code", b""))
