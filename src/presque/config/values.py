"""How the value of each setting is written: one reader a key.

A reader takes a raw value, typed (from YAML) or text (from the environment or a flag), and returns the
value that the rest of presque sees. What it refuses is a `ValueError` that holds the second half of a
sentence, "should be … , not …": its caller knows who said the value and where, and begins it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from presque.errors import shown
from presque.quantities import MIB, seconds, should_be, size, whole, yes_or_no
from presque.tokens import Rules, network

DAY_S = 86_400
LOG_FORMATS = ("auto", "plain", "json")
LOG_LEVELS = ("debug", "info", "warning", "error")

Reader = Callable[[object], Any]


def redis_url(value: object) -> dict[str, Any]:
    """Read `redis://`, `rediss://` or `unix://` into fields of `RedisSettings`: those that it names.

    Strict, and no error quotes any part of the URL: a misplaced character can make each of them a
    piece of the password. Raises `ValueError`.
    """
    if not isinstance(value, str):
        raise ValueError("should be a store URL such as redis://127.0.0.1:6379/0")
    if not all(c.isprintable() and c != " " for c in value):
        raise ValueError("is not a store URL: it holds a space or an unprintable character")
    if re.search(r"%(?![0-9A-Fa-f]{2})", value):
        raise ValueError("is not a store URL: % must be followed by two hexadecimal digits; write %25 for %")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        port, parts = None, urlsplit("")
        if "@" in value:
            raise ValueError(f"is not a store URL: {_ENCODE}") from None
        raise ValueError("is not a store URL: the host or the port is not valid") from None
    if parts.scheme not in ("redis", "rediss", "unix") or not value[len(parts.scheme) :].startswith("://"):
        raise ValueError("is not a store URL: it should begin with redis://, rediss:// or unix://")
    if "@" in parts.path + parts.query + parts.fragment or parts.netloc.count("@") > 1:
        raise ValueError(f"is not a store URL: {_ENCODE}")
    if parts.fragment or value.endswith("#"):
        raise ValueError("is not a store URL: it takes no #")
    fields: dict[str, Any] = {}
    if parts.username:
        fields["username"] = _decoded(parts.username)
    if parts.password:
        fields["password"] = _decoded(parts.password)
    if parts.scheme == "unix":
        return fields | _unix_address(parts.netloc, parts.path, parts.query)
    if parts.query or value.endswith("?"):
        raise ValueError(
            "is not a store URL: it takes no ?; the database follows the host, as in redis://host/2"
        )
    if not parts.hostname or not _is_host(parts.hostname):
        raise ValueError("is not a store URL: the host is missing or not valid")
    if port == 0:
        raise ValueError("is not a store URL: the port should be from 1 to 65535")
    fields |= {"host": parts.hostname, "tls": parts.scheme == "rediss"}
    if port is not None:
        fields["port"] = port
    if parts.path not in ("", "/"):
        fields["db"] = _database(parts.path[1:])
    return fields


_ENCODE = "in a user or password write %40 for @, %2F for /, %3A for :, %3F for ?, %23 for # and %25 for %"


def _unix_address(netloc: str, path: str, query: str) -> dict[str, Any]:
    if netloc.rpartition("@")[2] or len(path) < 2:
        raise ValueError(
            "is not a store URL: the path should begin with a third /, as in unix:///run/valkey.sock"
        )
    fields: dict[str, Any] = {"unix": Path(_decoded(path))}
    if query:
        pairs = parse_qsl(query, keep_blank_values=True)
        if [name for name, _ in pairs] != ["db"]:
            raise ValueError("is not a store URL: after the ? it takes db=NUMBER and nothing else")
        fields["db"] = _database(pairs[0][1])
    return fields


def _database(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise ValueError("is not a store URL: the database should be a number, as in redis://host:6379/2")
    return int(text)


def _decoded(text: str) -> str:
    try:
        decoded = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError("is not a store URL: the bytes written with % are not UTF-8") from None
    if "\0" in decoded:
        raise ValueError("is not a store URL: %00 is not allowed")
    return decoded


def _whole(least: int, most: int) -> Reader:
    def read(value: object) -> int:
        wanted = f"a whole number from {least} to {most}"
        try:
            number = whole(value)
        except ValueError:
            raise should_be(wanted, value) from None
        if least <= number <= most:
            return number
        raise should_be(wanted, value)

    return read


def _choice(*choices: str) -> Reader:
    def read(value: object) -> object:
        if value in choices:
            return value
        raise should_be(f"{', '.join(choices[:-1])} or {choices[-1]}", value)

    return read


def _path(value: object) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise should_be("a path", value)
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise ValueError(
            f"should be a path, and nobody here has the home directory of `{shown(value)}`"
        ) from None


def _namespace(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
        return str(value)
    wanted = "1 to 64 letters, digits and . _ -, beginning with a letter or digit"
    if isinstance(value, int):
        wanted += " (put it in quotes)"  # YAML reads 42 as a number and no as false.
    raise should_be(wanted, value)


def _is_host(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return re.fullmatch(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?", text) is not None
    return True


def _host(value: object) -> str:
    bare = value[1:-1] if isinstance(value, str) and value.startswith("[") and value.endswith("]") else value
    if isinstance(bare, str) and _is_host(bare):
        return str(bare)
    raise should_be("a host name or an IP address", value)


def _list_of(read_one: Reader, what: str) -> Reader:
    def read(value: object) -> tuple[Any, ...]:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",")]
        if not isinstance(value, (list, tuple)):
            raise should_be(f"a list of {what}", value)
        return tuple(dict.fromkeys(read_one(one) for one in value))

    return read


def _host_name(value: object) -> str:
    if isinstance(value, str) and ":" in value and not _is_host(value.strip("[]")):
        raise should_be("host names without a port", value)
    return _host(value).lower()


def _web_origin(value: object) -> str:
    match = (
        re.fullmatch(r"https?://(\[[0-9a-f:.]+\]|[^/:@\s]+)(:[0-9]{1,5})?", value.lower())
        if isinstance(value, str)
        else None
    )
    if match is None or not _is_host(match[1].strip("[]")):
        raise should_be("web origins such as https://ui.example, without a path", value)
    return match[0]


def _network(value: object) -> str:
    try:
        return str(network(value)) if isinstance(value, str) else _no_network(value)
    except ValueError:
        return _no_network(value)


def _no_network(value: object) -> str:
    raise should_be("addresses or networks such as 10.0.0.0/8", value)


def _time(value: object) -> float:
    found = seconds(value)
    if not 1 <= found <= DAY_S:
        raise should_be("a duration from 1s to 1d", value)
    return found


def _body_size(value: object) -> int:
    count = size(value)
    if not 1 <= count <= 512 * MIB:  # A string in the store ends at 512 MiB.
        raise should_be("a size from 1 byte to 512MiB", value)
    return count


def _memory_size(value: object) -> int:
    count = size(value)
    if 0 < count < MIB:
        raise should_be("0 for no limit, or at least 1MiB", value)
    return count


def _username(value: object) -> str:
    if isinstance(value, str) and value and value.isprintable():
        return str(value)
    raise ValueError("should be text; in YAML put it in quotes")


def _password(value: object) -> str:
    if isinstance(value, str) and value:
        return str(value)
    raise ValueError("should be text, which is not repeated here; in YAML put it in quotes")


def _certificate_names(value: object) -> dict[str, str]:
    """A name of a client's certificate -> the id of a token. As text it is a JSON object."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError('should be a JSON object such as {"CN=mailer": "tok1"}') from None
    if not isinstance(value, dict):
        raise should_be("names of certificates, each with a token, such as CN=mailer: tok1", value)
    for name, token in value.items():
        kind, _, rest = name.partition("=") if isinstance(name, str) else ("", "", "")
        if kind not in CERTIFICATE_NAMES or not rest:
            raise should_be("names that begin with CN=, DNS=, URI=, email= or IP=", name)
        if not isinstance(token, str) or not token:
            raise should_be(f"the id of a token for `{shown(name)}`", token)
        if not _token_id(token):  # settings, the log and the audit show ids
            raise ValueError(
                f"should be the id of a token for `{shown(name)}`, as `presque token list` shows it, and not "
                "the token, which is not repeated here"
            )
    return value


_token_id = re.compile(r"[A-Za-z0-9]{1,32}").fullmatch

CERTIFICATE_NAMES = ("CN", "DNS", "URI", "email", "IP")
"""Kinds of names in a certificate: the common name of its subject, and the alternative names."""


_account = re.compile(r"(?:[^\s@/\"&'<>:]{1,1023}@)?[^\s@/\"&'<>:]{1,1023}").fullmatch


def _domain(value: object) -> str:
    if isinstance(value, str) and _host_label(value.lower()):
        return value.lower()
    raise should_be("a domain such as presque.example", value)


_host_label = re.compile(r"(?=.{1,253}\Z)[^\s@/.\"&'<>:]+(?:\.[^\s@/.\"&'<>:]+)*").fullmatch


def _host_and_port(value: object) -> str:
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if _is_host(host.strip("[]")) and port.isdigit() and 0 < int(port) < 65536:
        return str(value)
    raise should_be("a host and a port such as 127.0.0.1:5347", value)


def _rules_of_accounts(value: object) -> dict[str, tuple[str, ...]]:
    """An XMPP account or a domain -> rules. As text it is a JSON object."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise ValueError('should be a JSON object such as {"ana@example.org": ["push:mail*"]}') from None
    if not isinstance(value, dict):
        raise should_be("accounts, each with rules, such as ana@example.org: [push:mail*]", value)
    found: dict[str, tuple[str, ...]] = {}
    for name, rules in value.items():
        if not isinstance(name, str) or not _account(name):
            raise should_be("accounts such as ana@example.org, or domains, without a resource", name)
        some = [rules] if isinstance(rules, str) else rules
        if not isinstance(some, (list, tuple)) or not all(isinstance(one, str) for one in some):
            raise should_be(f"a list of rules for `{shown(name)}`, such as [push:mail*]", rules)
        try:
            found[name.lower()] = Rules(some).texts
        except ValueError as error:
            raise ValueError(f"is wrong about `{shown(name)}`: {error}") from None
    return found


def _stanza_size(value: object) -> int:
    count = size(value)
    if not 16 * 1024 <= count <= 16 * MIB:
        raise should_be("a size from 16KiB to 16MiB", value)
    return count


READERS: dict[str, Reader] = {
    "host": _host,
    "port": _whole(0, 65535),
    "workers": _whole(1, 64),
    "namespace": _namespace,
    "insecure": yes_or_no,
    "require_tokens": yes_or_no,
    "hosts": _list_of(_host_name, "host names"),
    "origins": _list_of(_web_origin, "web origins"),
    "max_body": _body_size,
    "data": _path,
    "memory": yes_or_no,
    "traces": yes_or_no,
    "test_clock": yes_or_no,
    "fsync": _choice("always", "everysec"),
    "maxmemory": _memory_size,
    "min_free_disk": size,
    "valkey_bin": _path,
    "log_format": _choice(*LOG_FORMATS),
    "log_level": _choice(*LOG_LEVELS),
    "redis.url": redis_url,
    "redis.host": _host,
    "redis.port": _whole(1, 65535),
    "redis.unix": _path,
    "redis.db": _whole(0, 999_999),
    "redis.username": _username,
    "redis.password": _password,
    "redis.password_file": _path,
    "redis.tls": yes_or_no,
    "redis.ca": _path,
    "redis.cert": _path,
    "redis.key": _path,
    "redis.server_name": _host,
    "proxies": _list_of(_network, "addresses and networks"),
    "limits.connections": _whole(0, 1_000_000),
    "limits.by_address": _whole(0, 1_000_000),
    "limits.requests": _whole(0, 1_000_000),
    "limits.bodies": size,
    "limits.answers": size,
    "limits.head": _time,
    "limits.body": _time,
    "limits.idle": _time,
    "limits.unread": _time,
    "tls.cert": _path,
    "tls.key": _path,
    "tls.client_ca": _path,
    "tls.clients": _certificate_names,
    "xmpp.jid": _domain,
    "xmpp.secret": _password,
    "xmpp.secret_file": _path,
    "xmpp.server": _host_and_port,
    "xmpp.allow": _rules_of_accounts,
    "xmpp.deny": _rules_of_accounts,
    "xmpp.insecure": yes_or_no,
    "xmpp.max_stanza": _stanza_size,
}
