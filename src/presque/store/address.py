"""Where a store is, and how to log in."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a store is and how to log in. Either `unix`, or `host` and `port`."""

    host: str = "127.0.0.1"
    port: int = 6379
    unix: str | None = None
    db: int = 0
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    ca: str | None = None
    """A file with the authorities that may vouch for the store; None means those that the system knows."""
    cert: str | None = None
    """A file with the certificate that presque shows; `key` is one with its key, if not the same."""
    key: str | None = None
    server_name: str | None = None
    """The name that the store's certificate must be valid for, if it is not `host`."""

    def __str__(self) -> str:
        """The address as it may be shown and logged: without the password."""
        if self.unix is not None:
            return f"unix:{self.unix}"
        return f"{'rediss' if self.tls else 'redis'}://{self.host}:{self.port}/{self.db}"
