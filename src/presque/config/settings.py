"""What can be set: the plain values that inner code receives, and what follows from them.

`loading.load` makes one that was checked.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

import msgspec

from presque.errors import NoToken, SetupError
from presque.quantities import MIB

MASK = "***"


class RedisSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A store of your own. When `unix` is set, `host`, `port` and `tls` mean nothing.

    `password` is the password itself, also when it came out of `password_file`. It is in no `repr`.
    """

    host: str = "127.0.0.1"
    port: int = 6379
    unix: Path | None = None
    db: int = 0
    username: str | None = None
    password: str | None = None
    password_file: Path | None = None
    tls: bool = False
    ca: Path | None = None
    """The authorities that may vouch for the store, instead of those that the system knows."""
    cert: Path | None = None
    """The certificate that presque shows the store."""
    key: Path | None = None
    """Its key; None means that `cert` holds it, too."""
    server_name: str | None = None
    """The name that the store's certificate must be valid for, if it is not `host`."""

    @property
    def address(self) -> str:
        """Where the store is, as a URL without user and password: fit for logs and answers."""
        if self.unix is not None:
            return f"unix://{self.unix}?db={self.db}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{host}:{self.port}/{self.db}"

    def __repr__(self) -> str:
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        if self.password is not None:
            values["password"] = MASK
        return f"RedisSettings({', '.join(f'{name}={value!r}' for name, value in values.items())})"


class TlsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How presque speaks TLS. Its files are read again when they change."""

    cert: Path
    """The certificate, followed by those of the authorities between it and the root, in PEM."""
    key: Path | None = None
    """Its key; None means that `cert` holds it, too."""
    client_ca: Path | None = None
    """The authorities one of which must have signed the certificate of each client."""
    clients: dict[str, str] = {}
    """A name in a client's certificate, such as `CN=mailer` -> the id of the client's token."""


class XmppSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """presque at an XMPP server, and who may talk to it there. `secret` is in no `repr`."""

    jid: str
    """The domain that presque has there, such as `presque.example`."""
    secret: str | None = None
    """What the server knows presque by; the secret itself, also when it came out of `secret_file`."""
    secret_file: Path | None = None
    server: str = "127.0.0.1:5347"
    allow: dict[str, tuple[str, ...]] = {}
    """An account, or a domain for all of its accounts -> what it may do, as rules of access tokens."""
    deny: dict[str, tuple[str, ...]] = {}
    """The same keys -> what they may not do, whatever they may do otherwise."""
    insecure: bool = False
    """Whether the server may be on another machine, though what is said to it is not encrypted."""
    max_stanza: int = 256 * 1024
    """Bytes."""

    def __repr__(self) -> str:
        return f"XmppSettings(jid={self.jid!r}, server={self.server!r})"


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one server process tolerates from its clients. 0 means no limit. Times are in seconds."""

    connections: int = 25_000
    by_address: int = 1000
    """Connections of one address, or requests and WebSockets of one that comes through a believed proxy."""
    requests: int = 25_000
    """Requests under way."""
    bodies: int = 256 * MIB
    """Bytes of bodies, messages of WebSockets and stanzas that have come in part or are under way."""
    answers: int = 256 * MIB
    """Bytes of answers that clients have not taken."""
    head: float = 10.0
    body: float = 30.0
    idle: float = 75.0
    unread: float = 60.0
    """In each such time a client takes at least 64 KiB of its answer, or all of it."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set, as plain values. `load` makes one that was checked."""

    host: str = "127.0.0.1"
    port: int = 5000
    """0 takes any free port."""
    workers: int = 1
    namespace: str = "presque"
    insecure: bool = False
    require_tokens: bool = False
    """Whether requests need an access token even before one was made."""
    hosts: tuple[str, ...] = ()
    """Further names that a `Host` header may carry."""
    origins: tuple[str, ...] = ()
    """Further web origins that may call, such as `https://ui.example`."""
    max_body: int = MIB
    """Bytes."""
    data: Path | None = None
    """None means the user's data directory: ask `data_directory`."""
    memory: bool = False
    test_clock: bool = False
    """Whether the clock can be moved."""
    fsync: Literal["always", "everysec"] = "always"
    maxmemory: int = 0
    """Bytes; 0 means no limit."""
    min_free_disk: int = 256 * MIB
    """Bytes; 0 means no limit."""
    valkey_bin: Path | None = None
    redis: RedisSettings | None = None
    tls: TlsSettings | None = None
    proxies: tuple[str, ...] = ()
    """Addresses and networks of proxies whose word about their clients is believed."""
    limits: LimitSettings = LimitSettings()
    xmpp: XmppSettings | None = None
    traces: bool = False
    """Whether to make OpenTelemetry's spans of requests that ask for it."""
    log_format: Literal["auto", "plain", "json"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"


def data_directory(settings: Settings) -> Path | None:
    """Where the embedded store keeps its data: as set, or the user's data directory. None if nowhere."""
    if settings.memory or settings.redis is not None:
        return None
    return settings.data or default_data_directory()


def default_data_directory(environ: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path:
    """The user's data directory for presque. It need not exist. Raises `SetupError` without a home."""
    xdg = Path(environ.get("XDG_DATA_HOME", ""))
    if platform != "darwin" and xdg.is_absolute():  # The XDG specification ignores a relative one.
        return xdg / "presque"
    home = Path(environ.get("HOME", ""))
    if not home.is_absolute():
        raise SetupError("there is no home directory to keep data in: pass --data DIR")
    return home / ("Library/Application Support" if platform == "darwin" else ".local/share") / "presque"


def exposed(settings: Settings) -> str | None:
    """What lets others than the users of this machine reach the server, as the end of a sentence; None for
    nothing.

    A further host name counts as well: a page of any site can make a browser send requests to it, and
    browsers tell where a request comes from only for loopback and https.
    """
    if not is_loopback(settings.host):
        return f"listen on {settings.host}"
    names = [host for host in settings.hosts if not is_loopback(host)]
    return f"answer to the host `{names[0]}`" if names else None


def insecure_warning(settings: Settings) -> str | None:
    """What to warn of when there is no access token, and `insecure` is set; None if that does no harm."""
    why = exposed(settings)
    if why is None or not settings.insecure:
        return None
    return (
        f"told to {why} without access tokens: anybody who reaches {_door(settings)} can take and delete jobs"
    )


def check_tokens(settings: Settings, first_token: str) -> None:
    """Raise `NoToken` if others can reach the server. To be called when the store has no access token;
    `first_token` is how to make the first."""
    why = exposed(settings)
    if why is not None and not settings.insecure:
        raise NoToken(
            f"will not {why}: there is no access token yet, so anybody who reaches {_door(settings)} "
            f"could take and delete jobs; {first_token}, "
            "or pass --insecure if the network itself keeps strangers out"
        )


def _door(settings: Settings) -> str:
    return "its port" if settings.port == 0 else f"port {settings.port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
