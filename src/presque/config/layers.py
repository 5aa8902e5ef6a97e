"""Who says what: the settings file, the environment, the flags, each as a list of `Said`.

A file that nobody named is read from the working directory only if no stranger can have written it, and no
program is ever taken from it: `presque serve` may be called in a directory that others filled.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from presque.config.values import READERS
from presque.errors import SetupError, nearest, shown

_PROGRAMS = ("valkey_bin",)
"""Settings that name a program to run."""
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


class Said(msgspec.Struct, frozen=True):
    """A value as it was written, not read yet."""

    key: str
    raw: object
    origin: Origin


def file_to_read(
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


def in_file(path: Path, *, named: bool) -> list[Said]:
    """Walk the YAML as nodes, not as a dict: they know their lines, and a key given twice stays visible."""
    import yaml  # Reading YAML is for those who have a file; the others start without it.

    try:
        loader = yaml.SafeLoader(_text_of(path, named=named))
        root = loader.get_single_node()
        said: list[Said] = []
        if root is None:
            return said
        if not isinstance(root, yaml.MappingNode):
            raise SetupError(f"{path} should hold settings, each as `name: value`")
        for key, value, line in _pairs(root, path, within=""):
            if key in _HOLDS and isinstance(value, yaml.MappingNode):
                inner = _pairs(value, path, within=f"{key}.")
                if not inner:
                    raise SetupError(f"`{key}` in {path}:{line} is empty: give it {_HOLDS[key]}")
                said += [_said_there(loader, path, *pair) for pair in inner]
            elif key in ("tls", "limits", "xmpp"):
                raise SetupError(f"`{key}` in {path}:{line} should hold {_HOLDS[key]}")
            elif key == "redis":
                one = _said_there(loader, path, key, value, line)
                said.append(Said("redis.url", one.raw, one.origin))
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


def _said_there(loader: Any, path: Path, key: str, node: Any, line: int) -> Said:
    return Said(key, loader.construct_object(node, deep=True), Origin("file", key, f"{path}:{line}"))


def in_environment(environ: Mapping[str, str]) -> list[Said]:
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
            said.append(Said(keys[name], text, Origin("environment", name)))
    return said


def by_flags(flags: Mapping[str, object]) -> list[Said]:
    return [
        Said(key, raw, Origin("flag", _FLAGS.get(key, "--" + key.replace("_", "-"))))
        for key, raw in flags.items()
        if raw is not None
    ]
