"""Settings: what presque was told, where it was told so, and whether that makes sense.

Four layers, each stronger than the one before: defaults, one YAML file, the environment (`PRESQUE_…`),
flags. Everything is read once, at the roof; inner code receives the plain `Settings`.

The theory of operation: each layer becomes a list of `Said` (a key, a raw value, an `Origin`). A key is
a field of `Settings`, or `redis.` and a field of `RedisSettings`, or `redis.url`, which stands for
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
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal

import msgspec

from presque.errors import SetupError, nearest, shown
from presque.quantities import MIB
from presque.setting_values import READERS

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


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set, as plain values. `load` makes one that was checked."""

    host: str = "127.0.0.1"
    port: int = 5000
    """0 takes any free port."""
    workers: int = 1
    namespace: str = "presque"
    insecure: bool = False
    hosts: tuple[str, ...] = ()
    """Further names that a `Host` header may carry."""
    origins: tuple[str, ...] = ()
    """Further web origins that may call, such as `https://ui.example`."""
    max_body: int = MIB
    """Bytes."""
    data: Path | None = None
    """None means the user's data directory: ask `data_directory`."""
    memory: bool = False
    fsync: Literal["always", "everysec"] = "always"
    maxmemory: int = 0
    """Bytes; 0 is no limit."""
    min_free_disk: int = 256 * MIB
    """Bytes; 0 is no limit."""
    valkey_bin: Path | None = None
    redis: RedisSettings | None = None
    log_format: Literal["auto", "plain", "json"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"


@dataclass(frozen=True, slots=True)
class Origin:
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


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of `presque config show`. A secret is already masked."""

    setting: str
    value: Any
    origin: Origin


@dataclass(frozen=True, slots=True)
class Loaded:
    """Checked settings, for each of them who said so, and the file that was read, if any."""

    settings: Settings
    origins: Mapping[str, Origin]
    file: Path | None = None

    def entries(self) -> list[Entry]:
        """Every setting in the order of `Settings`; those of redis only when there is a redis."""
        rows = []
        for name in Settings.__struct_fields__:
            value = getattr(self.settings, name)
            if name == "redis" and value is not None:
                for field in RedisSettings.__struct_fields__:
                    secret = field == "password" and value.password is not None
                    shown_value = MASK if secret else getattr(value, field)
                    rows.append(self._entry(f"redis.{field}", shown_value))
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
        found_here = not named and not path.is_absolute()
        _lay_over(values, _read_all(_said_in_file(path, guarded=found_here), base=path.absolute().parent))
    _lay_over(values, _read_all(_said_in_environment(environ), base=Path.cwd()))
    _lay_over(values, _read_all(_said_by_flags(flags or {}), base=Path.cwd()))
    _check_together(values)
    redis = {key.removeprefix("redis."): value for key, value in values.items() if key.startswith("redis.")}
    plain: dict[str, Any] = {key: value.value for key, value in values.items() if "." not in key}
    if redis:
        plain["redis"] = _redis(redis)
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


def check_bind(settings: Settings) -> str | None:
    """Whether it is safe to listen on `settings.host`: None, or a warning to log under `insecure`.

    Raises `SetupError` for anything but loopback otherwise: there are no access tokens, so whoever
    reaches the port owns the queues.
    """
    if is_loopback(settings.host):
        return None
    door = "its port" if settings.port == 0 else f"port {settings.port}"
    if settings.insecure:
        return (
            f"listening on {settings.host} without access tokens: "
            f"anybody who reaches {door} can take and delete jobs"
        )
    raise SetupError(
        f"will not listen on {settings.host}: there are no access tokens, so anybody who reaches {door} "
        "could take and delete jobs; listen on 127.0.0.1 behind a proxy that checks who asks, "
        "or pass --insecure if the network itself keeps strangers out"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


_FLAGS = {"hosts": "--allow-host", "redis.url": "--redis"}
_OF_THE_CLIENT = ("PRESQUE_URL", "PRESQUE_TOKEN")

# Kubernetes tells every container about the Services around it, in the names that Docker links once
# used. A Service called `presque` or `presque-redis` must not look like a misspelt setting.
_service_link = re.compile(
    r"PRESQUE_(?:[A-Z0-9_]+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?"
    r"|PORT_[0-9]+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
).fullmatch
_service_address = re.compile(r"(?:tcp|udp|sctp)://").match


# --- layers


@dataclass(frozen=True, slots=True)
class _Said:
    key: str
    raw: object
    origin: Origin


@dataclass(frozen=True, slots=True)
class _Value:
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


def _text_of(path: Path, *, guarded: bool) -> str:
    """The text of a settings file. A `guarded` one was found in the working directory, where a stranger may
    have put it: it must belong to us or root, and nobody else may write it.

    Raises `OSError`, `SetupError`.
    """
    with path.open(encoding="utf-8") as file:
        if guarded:
            owners, facts = {path.lstat().st_uid, os.fstat(file.fileno()).st_uid}, os.fstat(file.fileno())
            if owners - {os.geteuid(), 0}:
                raise SetupError(
                    f"{path} in the working directory belongs to another user, so it is not read; "
                    f"name it with --config if you trust it, or remove it"
                )
            others = 0o002 if _is_group_of_one(facts.st_gid) else 0o022
            if facts.st_mode & others:
                raise SetupError(
                    f"others may write {path} in the working directory, so it is not read; "
                    f"`chmod go-w {path}`, or name it with --config if you trust it"
                )
        return file.read()


def _is_group_of_one(group: int) -> bool:
    """Whether a group is the one that a user of that name has for himself, as many systems make it."""
    try:
        entry = grp.getgrgid(group)
        user = pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return user.pw_gid == group and entry.gr_name == user.pw_name and not set(entry.gr_mem) - {user.pw_name}


def _said_in_file(path: Path, *, guarded: bool) -> list[_Said]:
    """Walk the YAML as nodes, not as a dict: they know their lines, and a key given twice stays visible."""
    import yaml  # Reading YAML is for those who have a file; the others start without it.

    try:
        loader = yaml.SafeLoader(_text_of(path, guarded=guarded))
        root = loader.get_single_node()
        said: list[_Said] = []
        if root is None:
            return said
        if not isinstance(root, yaml.MappingNode):
            raise SetupError(f"{path} should hold settings, each as `name: value`")
        for key, value, line in _pairs(root, path, within=""):
            if key == "redis" and isinstance(value, yaml.MappingNode):
                inner = _pairs(value, path, within="redis.")
                if not inner:
                    raise SetupError(
                        f"`redis` in {path}:{line} is empty: give it host and port, unix, or url"
                    )
                said += [_said_there(loader, path, *pair) for pair in inner]
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
    if guarded and program is not None:
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
    """Put a stronger layer on top. An address that names the whole store replaces all that was said."""
    if any(value.origin.name in _SAY_THE_WHOLE for value in layer.values()):
        for key in [key for key in values if key.startswith("redis.")]:
            del values[key]
    values.update(layer)


_SAY_THE_WHOLE = ("--redis", "PRESQUE_REDIS", "PRESQUE_REDIS__URL")


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
)


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
