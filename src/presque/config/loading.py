"""Reading the settings of a process: the layers laid over each other, and whether they make sense.

Four layers, each stronger than the one before: defaults, one YAML file, the environment (`PRESQUE_…`),
flags. Everything is read once, at the roof; inner code receives the plain `Settings`.

Each layer is a list of `layers.Said` (a key, a raw value, an `Origin`). A key is a field of `Settings`, or
`redis.` or `tls.` and a field of that section, or `redis.url`, which stands for several of them. One reader a
key (`values.READERS`) turns the raw value into the value; what it refuses becomes a `SetupError` that names
the key as it was written, and the place.

Two rules that are not obvious. A store URL says the whole: it replaces everything that weaker layers
said about redis, so that the password of one store is never sent to another. A relative path is meant
from the directory of the file that holds it, or from the working directory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from presque.config.layers import Origin, Said, by_flags, file_to_read, in_environment, in_file
from presque.config.settings import (
    MASK,
    LimitSettings,
    RedisSettings,
    Settings,
    TlsSettings,
    XmppSettings,
    data_directory,
    is_loopback,
)
from presque.config.values import READERS
from presque.errors import SetupError, shown

FILES = (Path("presque.yaml"), Path("/etc/presque/presque.yaml"))
"""Where settings are looked for when nobody names a file. The first that exists is read, no other."""

_SAY_THE_WHOLE = ("--redis", "PRESQUE_REDIS", "PRESQUE_REDIS__URL")
_TRUST = ("redis.ca", "redis.cert", "redis.key")


class _Value(msgspec.Struct, frozen=True):
    value: Any
    origin: Origin


class Entry(msgspec.Struct, frozen=True):
    """One row of `presque config show`. A secret is already masked."""

    setting: str
    value: Any
    origin: Origin


class Loaded(msgspec.Struct, frozen=True):
    """Checked settings, for each of them who said so, and the file that was read, if any."""

    settings: Settings
    origins: Mapping[str, Origin]
    file: Path | None = None

    def entries(self) -> list[Entry]:
        """Every setting in the order of `Settings`; those of redis only when there is a redis."""
        rows = []
        for name in Settings.__struct_fields__:
            value = getattr(self.settings, name)
            if isinstance(value, (RedisSettings, TlsSettings, LimitSettings, XmppSettings)):
                for field in value.__struct_fields__:
                    inner = getattr(value, field)
                    secret = field in ("password", "secret") and inner is not None
                    rows.append(self._entry(f"{name}.{field}", MASK if secret else inner))
            elif name == "data":
                rows.append(self._entry(name, data_directory(self.settings)))
            else:
                rows.append(self._entry(name, value))
        return rows

    def _entry(self, setting: str, value: object) -> Entry:
        return Entry(setting, value, self.origins.get(setting, Origin("default", setting)))


def load(
    flags: Mapping[str, object] | None = None,
    environ: Mapping[str, str] = os.environ,
    *,
    config: str | None = None,
    files: Sequence[Path] = FILES,
) -> Loaded:
    """Read the settings of this process. Raises `SetupError` with the first thing that is wrong.

    `flags` are values by key (`port`, `redis.url`); None means that the flag was not given. `config`
    is the file of `--config`; without it `PRESQUE_CONFIG`, then the first of `files` that exists.
    """
    path, named = file_to_read(config, environ, files)
    values: dict[str, _Value] = {}
    if path is not None:
        _lay_over(values, _read_all(in_file(path, named=named), base=path.absolute().parent))
    _lay_over(values, _read_all(in_environment(environ), base=Path.cwd()))
    _lay_over(values, _read_all(by_flags(flags or {}), base=Path.cwd()))
    _check_together(values)
    plain: dict[str, Any] = {key: value.value for key, value in values.items() if "." not in key}
    for section, of_section in SECTIONS.items():
        within = f"{section}."
        inner = {key.removeprefix(within): value for key, value in values.items() if key.startswith(within)}
        if inner:
            plain[section] = of_section(inner)
    return Loaded(Settings(**plain), {key: value.origin for key, value in values.items()}, path)


def _read_all(said: Iterable[Said], *, base: Path) -> dict[str, _Value]:
    """Read one layer. In its values a URL has become the fields that it stands for."""
    values: dict[str, _Value] = {}
    for one in said:
        try:
            value = READERS[one.key](one.raw)
        except ValueError as error:
            raise SetupError(f"{one.origin} {error}") from None
        read = {f"redis.{k}": v for k, v in value.items()} if one.key == "redis.url" else {one.key: value}
        for key, part in read.items():
            if key in values:
                raise _contradiction(values[key].origin, one.origin, f"both set `{key}`")
            values[key] = _Value(base / part if isinstance(part, Path) else part, one.origin)
    return values


def _lay_over(values: dict[str, _Value], layer: Mapping[str, _Value]) -> None:
    """Put a stronger layer on top. An address that names the whole store replaces all that was set before,
    except the TLS files, of which no secret is sent to anybody."""
    if any(value.origin.name in _SAY_THE_WHOLE for value in layer.values()):
        over_tls = "redis.tls" in layer and layer["redis.tls"].value
        for key in [key for key in values if key.startswith("redis.")]:
            if not (over_tls and key in _TRUST):
                del values[key]
    values.update(layer)


_CONTRADICTIONS = (
    ("memory", "data", "a store in memory has no directory"),
    ("redis", "memory", "presque uses one store, yours or its own"),
    ("redis", "data", "a store of your own keeps its data where you told it to"),
    ("redis", "fsync", "a store of your own has its own `appendfsync`"),
    ("redis", "maxmemory", "a store of your own has its own `maxmemory`"),
    ("redis", "min_free_disk", "presque watches the disk of its own store alone"),
    ("redis.unix", "redis.host", "a store is reached through a socket file or over the network"),
    ("redis.unix", "redis.port", "a store is reached through a socket file or over the network"),
    ("redis.unix", "redis.tls", "there is no TLS on a socket file"),
    ("redis.password", "redis.password_file", "there is one password"),
    ("xmpp.secret", "xmpp.secret_file", "there is one secret"),
)
_NEEDS = (
    *(
        (f"redis.{name}", "redis.tls", "they are for a store that speaks TLS")
        for name in ("ca", "cert", "server_name")
    ),
    ("redis.key", "redis.cert", "there is no certificate that the key belongs to"),
    ("test_clock", "memory", "a clock that can be moved is for tests, which keep no data"),
    ("tls.key", "tls.cert", "there is no certificate that the key belongs to"),
    ("tls.client_ca", "tls.cert", "without a certificate presque speaks no TLS"),
    ("tls.clients", "tls.client_ca", "nothing says whose certificates to believe"),
    *(
        (f"xmpp.{name}", "xmpp.jid", "it says which domain presque has at the XMPP server")
        for name in ("secret", "secret_file", "server", "allow", "deny", "insecure", "max_stanza")
    ),
)


_ONE = _Value(1, Origin("default", "workers"))


def _check_together(values: Mapping[str, _Value]) -> None:
    redis = [value.origin for key, value in values.items() if key.startswith("redis.")]
    told = {key: value.origin for key, value in values.items() if value.value not in (False, 0)}
    if redis:
        addresses = [
            values[key].origin for key in ("redis.unix", "redis.host", "redis.port") if key in values
        ]
        if not addresses:
            raise SetupError(
                f"{redis[0]} is set, but nothing says where the store is: "
                "give redis.host, redis.unix or redis.url"
            )
        told["redis"] = addresses[0]
    for one, other, why in _CONTRADICTIONS:
        if one in told and other in told:
            raise _contradiction(told[one], told[other], why)
    if "test_clock" in told and values.get("workers", _ONE).value > 1:
        raise _contradiction(told["test_clock"], told["workers"], "only one process can follow a moved clock")
    for one, other, why in _NEEDS:
        if one in told and other not in told:
            raise SetupError(f"{told[one]} is set, but `{other}` is not: {why}")
    if "redis.username" in told and not {"redis.password", "redis.password_file"} & told.keys():
        raise SetupError(
            f"{told['redis.username']} names a user without a password: "
            "a URL with a password alone is redis://:PASSWORD@host"
        )


def _contradiction(one: Origin, other: Origin, why: str) -> SetupError:
    return SetupError(f"{one} and {other} contradict each other: {why}")


def _redis(values: Mapping[str, _Value]) -> RedisSettings:
    plain = {field: value.value for field, value in values.items()}
    if "password_file" in values:
        plain["password"] = _password_in(plain["password_file"], values["password_file"].origin)
    return RedisSettings(**plain)


def _tls(values: Mapping[str, _Value]) -> TlsSettings:
    return TlsSettings(**{field: value.value for field, value in values.items()})


def _limits(values: Mapping[str, _Value]) -> LimitSettings:
    return LimitSettings(**{field: value.value for field, value in values.items()})


def _xmpp(values: Mapping[str, _Value]) -> XmppSettings:
    plain = {field: value.value for field, value in values.items()}
    if "secret_file" in values:
        plain["secret"] = _password_in(plain["secret_file"], values["secret_file"].origin)
    found = XmppSettings(**plain)
    if found.secret is None:
        raise SetupError(
            f"{values['jid'].origin} is set, but `xmpp.secret` is not: it is the `component_secret` that the "
            "XMPP server has for presque; a file for it is `xmpp.secret_file`"
        )
    for key in found.deny:
        if key not in found.allow:
            raise SetupError(f"{values['deny'].origin} names `{shown(key)}`, which `xmpp.allow` does not")
    host = found.server.rpartition(":")[0].strip("[]")
    if not is_loopback(host) and not found.insecure:
        raise SetupError(
            f"{values['server'].origin} is another machine, and what a component says to its server is not "
            "encrypted, the secret and the jobs included: use a tunnel to it and name the near end, or set "
            "`xmpp.insecure` if the network itself keeps strangers out"
        )
    return found


SECTIONS: Mapping[str, Callable[[Mapping[str, _Value]], Any]] = {
    "redis": _redis,
    "tls": _tls,
    "limits": _limits,
    "xmpp": _xmpp,
}
"""Settings that belong together, and what makes one value of them."""


def _password_in(path: Path, origin: Origin) -> str:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read(4096).removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise SetupError(f"{origin} cannot be read: {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SetupError(f"{origin} should hold a password, and {path} is not UTF-8") from None
    if not text or "\n" in text:
        raise SetupError(f"{origin} should hold a password in one line, and {path} does not")
    return text
