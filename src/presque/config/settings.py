"""Settings: their values, where each came from, and whether they make sense.

Four layers, each stronger than the one before: defaults, one YAML file, the environment (`PRESQUE_…`),
flags. Everything is read once, at the roof; inner code receives the plain `Settings`.

The theory of operation: each layer becomes a list of `Said` (a key, a raw value, an `Origin`). A key is
a field of `Settings`, or `redis.` or `tls.` and a field of that section, or `redis.url`, which stands for
several of them. One reader a key (`setting_values`) turns the raw value into the value; what it
refuses becomes a `SetupError` that names the key as it was written, and the place.

Two rules that are not obvious. A store URL says the whole: it replaces everything that weaker layers
said about redis, so that the password of one store is never sent to another. A relative path is meant
from the directory of the file that holds it, or from the working directory.

A file that nobody named is read from the working directory only if no stranger can have written it, and no
program is ever taken from it: `presque serve` may be called in a directory that others filled.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

import msgspec

from presque.config.values import READERS
from presque.errors import NoToken, SetupError, nearest, shown
from presque.quantities import MIB

FILES = (Path("presque.yaml"), Path("/etc/presque/presque.yaml"))
"""Where settings are looked for when nobody names a file. The first that exists is read, no other."""

MASK = "***"

_PROGRAMS = ("valkey_bin",)


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
    """Bytes of bodies, and of messages of WebSockets, that have come in part or are under way."""
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


class Origin(msgspec.Struct, frozen=True):
    """Who said a value: `name` is the key as it was written, `place` the file and line, if a file."""

    source: Literal["default", "file", "environment", "flag"]
    name: str
    place: str = ""

    def __str__(self) -> str:
        """The beginning of a sentence about this value."""
        if self.source == "flag":
            return f"`{self.name}`"
        return f"`{self.name}` in {self.place if self.source == 'file' else 'the environment'}"

    @property
    def short(self) -> str:
        """The cell of a table: `default`, `presque.yaml:3`, `PRESQUE_PORT` or `--port`."""
        return {"default": "default", "file": self.place}.get(self.source, self.name)


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
    path, named = _file_to_read(config, environ, files)
    values: dict[str, _Value] = {}
    if path is not None:
        _lay_over(values, _read_all(_said_in_file(path, named=named), base=path.absolute().parent))
    _lay_over(values, _read_all(_said_in_environment(environ), base=Path.cwd()))
    _lay_over(values, _read_all(_said_by_flags(flags or {}), base=Path.cwd()))
    _check_together(values)
    plain: dict[str, Any] = {key: value.value for key, value in values.items() if "." not in key}
    for section, of_section in SECTIONS.items():
        within = f"{section}."
        inner = {key.removeprefix(within): value for key, value in values.items() if key.startswith(within)}
        if inner:
            plain[section] = of_section(inner)
    return Loaded(Settings(**plain), {key: value.origin for key, value in values.items()}, path)


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


_FLAGS = {
    "hosts": "--allow-host", "redis.url": "--redis", "tls.cert": "--tls-cert", "tls.key": "--tls-key",
    "xmpp.jid": "--jid", "xmpp.server": "--server", "xmpp.secret_file": "--secret-file",
    "xmpp.allow": "--allow",
}  # fmt: skip
_OF_THE_CLIENT = (
    "PRESQUE_URL", "PRESQUE_TOKEN", "PRESQUE_CONTEXT", "PRESQUE_CA", "PRESQUE_CERT", "PRESQUE_KEY",
)  # fmt: skip
_HOLDS = {
    "redis": "host and port, unix, or url",
    "tls": "cert and key",
    "limits": "numbers, such as connections: 1000",
    "xmpp": "jid, secret and who may ask",
}

# Kubernetes tells every container about the Services around it, in the names that Docker links once
# used. A Service called `presque` or `presque-redis` must not look like a misspelt setting.
_service_link = re.compile(
    r"PRESQUE_(?:[A-Z0-9_]+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?"
    r"|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
).fullmatch
_service_address = re.compile(r"(?:tcp|udp|sctp)://").match


# --- layers


class _Said(msgspec.Struct, frozen=True):
    key: str
    raw: object
    origin: Origin


class _Value(msgspec.Struct, frozen=True):
    value: Any
    origin: Origin


def _file_to_read(
    config: str | None, environ: Mapping[str, str], files: Iterable[Path]
) -> tuple[Path | None, bool]:
    """The settings file, if any, and whether somebody named it."""
    named = config if config is not None else environ.get("PRESQUE_CONFIG") or None
    if named is None:
        return next((path for path in files if path.is_file()), None), False
    path = Path(named).expanduser()
    if not path.is_file():
        teller = "--config" if config is not None else "PRESQUE_CONFIG"
        raise SetupError(f"there is no settings file `{shown(named)}`, which {teller} asks for")
    return path, True


def _text_of(path: Path, *, named: bool) -> str:
    """The text of a settings file. One that nobody named must not be writable by everybody. One found in the
    working directory may have been put there by a stranger: it must belong to us or root, and nobody else may
    write it, or put another file in its place.

    Raises `OSError`, `SetupError`.
    """
    with path.open(encoding="utf-8") as file:
        facts = os.fstat(file.fileno())
        if not named and not path.is_absolute():
            _check_found_here(path, facts)
        elif not named and facts.st_mode & stat.S_IWOTH:
            raise SetupError(f"others may write {path}, so it is not read; `chmod o-w {path}`")
        return file.read()


def _check_found_here(path: Path, facts: os.stat_result) -> None:
    """Raise `SetupError` if a stranger may have written this file of the working directory."""
    here = path.absolute().parent
    around, ours = here.stat(), {os.geteuid(), 0}
    if {path.lstat().st_uid, facts.st_uid} - ours:
        raise SetupError(
            f"{path} in the working directory belongs to another user, so it is not read; "
            f"name it with --config if you trust it, or remove it"
        )
    if _others_may_write(facts):
        raise SetupError(
            f"others may write {path} in the working directory, so it is not read; "
            f"`chmod go-w {path}`, or name it with --config if you trust it"
        )
    # In a sticky directory, such as /tmp, others can put nothing in the place of a file of ours.
    if around.st_uid not in ours or (_others_may_write(around) and not around.st_mode & stat.S_ISVTX):
        raise SetupError(
            f"others may write the working directory {here}, and so replace {path}, so it is not read; "
            f"name it with --config if you trust it"
        )


def _others_may_write(facts: os.stat_result) -> bool:
    others = stat.S_IWOTH if _is_group_of_one(facts.st_gid) else stat.S_IWOTH | stat.S_IWGRP
    return bool(facts.st_mode & others)


def _is_group_of_one(group: int) -> bool:
    """Whether a group is the one that a user of that name has for himself, as many systems make it."""
    try:
        entry = grp.getgrgid(group)
        user = pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return user.pw_gid == group and entry.gr_name == user.pw_name and not set(entry.gr_mem) - {user.pw_name}


def _said_in_file(path: Path, *, named: bool) -> list[_Said]:
    """Walk the YAML as nodes, not as a dict: they know their lines, and a key given twice stays visible."""
    import yaml  # Reading YAML is for those who have a file; the others start without it.

    try:
        loader = yaml.SafeLoader(_text_of(path, named=named))
        root = loader.get_single_node()
        said: list[_Said] = []
        if root is None:
            return said
        if not isinstance(root, yaml.MappingNode):
            raise SetupError(f"{path} should hold settings, each as `name: value`")
        for key, value, line in _pairs(root, path, within=""):
            if key in SECTIONS and isinstance(value, yaml.MappingNode):
                inner = _pairs(value, path, within=f"{key}.")
                if not inner:
                    raise SetupError(f"`{key}` in {path}:{line} is empty: give it {_HOLDS[key]}")
                said += [_said_there(loader, path, *pair) for pair in inner]
            elif key in ("tls", "limits", "xmpp"):
                raise SetupError(f"`{key}` in {path}:{line} should hold {_HOLDS[key]}")
            elif key == "redis":
                one = _said_there(loader, path, key, value, line)
                said.append(_Said("redis.url", one.raw, one.origin))
            else:
                said.append(_said_there(loader, path, key, value, line))
    except OSError as error:
        raise SetupError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SetupError(f"{path} is not UTF-8") from None
    except yaml.MarkedYAMLError as error:
        place = f"{path}:{error.problem_mark.line + 1}" if error.problem_mark else str(path)
        raise SetupError(f"{place} is not valid YAML: {_yaml_problem(error.problem)}") from None
    except (yaml.YAMLError, ValueError):
        raise SetupError(f"{path} is not valid YAML") from None
    except RecursionError:
        raise SetupError(f"{path} is nested too deeply: settings are at most three levels deep") from None
    program = next((one for one in said if one.key in _PROGRAMS and one.raw is not None), None)
    if program is not None and not named and not path.is_absolute():
        raise SetupError(
            f"{program.origin} names a program to run, which a file that was merely found in the working "
            "directory may not do; pass --valkey-bin, set PRESQUE_VALKEY_BIN, or name the file with --config"
        )
    return [one for one in said if one.raw is not None]


_names_tokens = re.compile(
    r"expected (?:'[^\w\s]' or '[^\w\s]'|'?<[a-z ]+>'?), but (?:got|found) '[^']*'"
).fullmatch


def _yaml_problem(problem: str | None) -> str:
    """What the parser says, without what it quotes: that may be a password that begins with * or !."""
    if problem is None:
        return "it cannot be read"
    if _names_tokens(problem):  # it quotes nothing but kinds of tokens
        return problem
    return shown(re.sub(r"(?:, but found)?\s*(['\"]).*\1", "", problem))


def _pairs(node: Any, path: Path, *, within: str) -> list[tuple[str, Any, int]]:
    inside = [key.removeprefix(within).partition(".")[0] for key in READERS if key.startswith(within)]
    known = {f"{within}{name}" for name in inside}
    found: dict[str, tuple[str, Any, int]] = {}
    for key_node, value in node.value:
        name, line = f"{within}{key_node.value}", key_node.start_mark.line + 1
        if name not in known:
            raise SetupError(f"unknown setting `{shown(name)}` in {path}:{line}, {nearest(name, known)}")
        if name in found:
            raise SetupError(f"`{name}` is given twice in {path}, in lines {found[name][2]} and {line}")
        found[name] = (name, value, line)
    return list(found.values())


def _said_there(loader: Any, path: Path, key: str, node: Any, line: int) -> _Said:
    return _Said(key, loader.construct_object(node, deep=True), Origin("file", key, f"{path}:{line}"))


def _said_in_environment(environ: Mapping[str, str]) -> list[_Said]:
    """An empty variable says nothing: compose files and unit files cannot leave one out."""
    keys = {f"PRESQUE_{key.replace('.', '__').upper()}": key for key in READERS} | {
        "PRESQUE_REDIS": "redis.url"
    }
    said = []
    for name, text in sorted(environ.items()):
        if not name.startswith("PRESQUE_") or name in _OF_THE_CLIENT or name == "PRESQUE_CONFIG":
            continue
        if name.startswith(
            ("PRESQUE_WORKER_", "PRESQUE_JOB_")
        ):  # of workers, and of the jobs of `presque work`
            continue
        if _service_link(name) or (name.endswith("_PORT") and _service_address(text)):
            continue
        if name not in keys:
            guess = nearest(name, [*keys, *_OF_THE_CLIENT, "PRESQUE_CONFIG"])
            raise SetupError(f"unknown setting `{shown(name)}` in the environment, {guess}")
        if text:
            said.append(_Said(keys[name], text, Origin("environment", name)))
    return said


def _said_by_flags(flags: Mapping[str, object]) -> list[_Said]:
    return [
        _Said(key, raw, Origin("flag", _FLAGS.get(key, "--" + key.replace("_", "-"))))
        for key, raw in flags.items()
        if raw is not None
    ]


def _read_all(said: Iterable[_Said], *, base: Path) -> dict[str, _Value]:
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


_SAY_THE_WHOLE = ("--redis", "PRESQUE_REDIS", "PRESQUE_REDIS__URL")
_TRUST = ("redis.ca", "redis.cert", "redis.key")


# --- what fits together

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
