"""doctor: checks this installation, one function a question, and says what to do."""

from __future__ import annotations

import contextlib
import platform
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib import metadata
from ipaddress import ip_address

import click

from presque.cli import findings
from presque.cli.connection import ORIGIN, server_options
from presque.cli.fields import json_option
from presque.cli.findings import Finding
from presque.cli.server_findings import of_server
from presque.cli.terminal import coloured, pairs, print_json
from presque.config.loading import load
from presque.config.settings import Settings, insecure_warning
from presque.errors import SetupError
from presque.exits import DONE, FAILED
from presque.server.serving import address_of
from presque.store.embedded import find_binary
from presque.version import __version__

PARTS = ("httptools", "uvloop", "hiredis", "msgspec")
OPEN_FILES = 4096

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command(short_help="Check this installation and say what to do.")
@click.option("--config", "file", metavar="FILE", help="Settings file, as for serve.")
@json_option("Print a list of objects.")
@server_options
@click.pass_context
def doctor(ctx: click.Context, file: str | None, as_json: bool, url: str, token: str | None) -> int:
    """Check this installation and say what to do. Exits with 1 when something must be fixed."""
    found = list(examine(file, url if ctx.meta[ORIGIN] else "", token))
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        click.echo(written(found))
    return FAILED if any(one.result == "fail" for one in found) else DONE


def written(found: list[Finding]) -> str:
    """A row for each finding, and below it what to do."""
    column = max(len(one.check) for one in found) + 8
    lines = pairs([("      check", "seen")], column).splitlines()
    for one in found:
        first, *more = pairs([(f"{one.result:4}  {one.check}", one.seen)], column).splitlines()
        lines += [coloured(one.result, _COLOURS[one.result]) + first[len(one.result) :], *more]
        if one.todo:
            lines += pairs([("      →", one.todo)], 8).splitlines()
    return "\n".join(lines)


def examine(file: str | None, url: str, token: str | None) -> Iterator[Finding]:
    """Every check, in the order in which to fix things. Without a `url` the server is looked for where the
    settings have it."""
    yield Finding("Python", "ok", f"{platform.python_version()} ({sys.executable})")
    yield Finding("presque", "ok", __version__)
    yield from (part(name) for name in PARTS)
    try:
        loaded = load(config=file)
        warning = insecure_warning(loaded.settings)
    except SetupError as error:
        yield Finding("settings", "fail", "not valid", str(error))
        settings = Settings()
    else:
        settings = loaded.settings
        seen = f"valid, from {loaded.file}" if loaded.file else "valid"
        yield Finding("settings", "warn", seen, warning) if warning else Finding("settings", "ok", seen)
    if settings.redis is not None:
        yield from findings.store(address_of(settings.redis))
    else:
        yield store_binary(settings)
        yield from findings.data(settings)
    yield open_files()
    if settings.tls is not None:
        yield findings.certificate(settings.tls, settings.hosts)
    yield from of_server(url or url_of(settings), token, named=bool(url))


def url_of(settings: Settings) -> str:
    """Where a server with these settings answers on this machine."""
    host = settings.host
    with contextlib.suppress(ValueError):  # a name is not an address
        if (address := ip_address(host)).is_unspecified:
            host = "127.0.0.1" if address.version == 4 else "::1"
    scheme = "http" if settings.tls is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{settings.port or 5000}"


def part(name: str) -> Finding:
    """A package that presque stands on is installed."""
    try:
        return Finding(name, "ok", metadata.version(name))
    except metadata.PackageNotFoundError:
        if name == "uvloop" and sys.platform == "win32":
            return Finding(name, "ok", "not for Windows")
        return Finding(name, "fail", "not installed", f"install it: pip install {name}")


def store_binary(settings: Settings) -> Finding:
    """There is a store to start, and it starts."""
    try:
        path = find_binary(settings.valkey_bin)
    except SetupError as error:
        return Finding("valkey", "fail", "not found", str(error))
    try:
        said = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("valkey", "fail", str(path), f"it does not run: {error}")
    words = dict(word.split("=", 1) for word in said.split() if "=" in word)
    version = words.get("v", "")
    seen = f"{version or 'unknown version'} ({path})"
    if not version.split(".")[0].isdigit() or int(version.split(".")[0]) < 7:
        return Finding("valkey", "fail", seen, "presque needs Valkey 8 or Redis 7, or later")
    return Finding("valkey", "ok", seen)


def open_files() -> Finding:
    """Each connection is an open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= OPEN_FILES:
        return Finding("open files", "ok", "no limit" if soft == resource.RLIM_INFINITY else str(soft))
    most = "unlimited" if hard == resource.RLIM_INFINITY else str(min(hard, 65536))
    return Finding("open files", "warn", f"{soft} at most", f"for many clients run `ulimit -n {most}` first")
