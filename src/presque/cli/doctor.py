"""doctor: checks this installation, one function a question, and says what to do."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Literal

import click

from presque.cli.connection import server_options
from presque.cli.exits import DONE, FAILED
from presque.cli.terminal import coloured, table
from presque.client import Client, ClientError, ServerNotReached
from presque.client.address import DEFAULT_URL
from presque.config import Settings, check_bind, data_directory, load
from presque.errors import SetupError
from presque.store.embedded import find_binary
from presque.version import __version__

PARTS = ("httptools", "uvloop", "hiredis", "msgspec")
OPEN_FILES = 4096
FREE_BYTES = 256 * 1024 * 1024

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One row: what was looked at, how it is, what was seen, and what to do if it is not ok."""

    check: str
    result: Literal["ok", "warn", "fail"]
    seen: str
    todo: str = ""


@click.command(short_help="Check this installation and say what to do.")
@click.option("--config", "file", metavar="FILE", help="Settings file, as for serve.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects.")
@server_options
def doctor(file: str | None, as_json: bool, url: str, token: str | None) -> int:
    """Check this installation and say what to do. Exits with 1 when something must be mended."""
    findings = list(examine(file, url, token))
    if as_json:
        click.echo(json.dumps([asdict(one) for one in findings], indent=2))
    else:
        # Colours come after the layout: the table measures its cells.
        lines = table(
            ("", "check", "seen"), [(one.result, one.check, one.seen) for one in findings]
        ).splitlines()
        click.echo(lines[0])
        for line, one in zip(lines[1:], findings, strict=True):
            click.echo(coloured(one.result, _COLOURS[one.result]) + line[len(one.result) :])
            if one.todo:
                click.echo(f"      → {one.todo}")
    return FAILED if any(one.result == "fail" for one in findings) else DONE


def examine(file: str | None, url: str, token: str | None) -> Iterator[Finding]:
    """Every check, in the order in which to mend things."""
    yield Finding("Python", "ok", f"{platform.python_version()} ({sys.executable})")
    yield Finding("presque", "ok", __version__)
    yield from (part(name) for name in PARTS)
    try:
        loaded = load(config=file)
        warning = check_bind(loaded.settings)
    except SetupError as error:
        yield Finding("settings", "fail", "not valid", str(error))
        settings = Settings()
    else:
        settings = loaded.settings
        yield Finding("settings", "warn", "valid", warning) if warning else Finding("settings", "ok", "valid")
    if settings.redis is not None:
        yield Finding("store", "ok", f"yours, at {settings.redis.address}")
    else:
        yield store_binary(settings)
        yield from data(settings)
    yield open_files()
    yield server(url, token)


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


def data(settings: Settings) -> Iterator[Finding]:
    """The data directory can be written, or made, and its disk is not full. Nothing is created."""
    try:
        directory = data_directory(settings)
    except SetupError as error:
        yield Finding("data", "fail", "nowhere", str(error))
        return
    if directory is None:
        yield Finding("data", "warn", "in memory only", "jobs are gone when the server stops")
        return
    there = next(path for path in (directory, *directory.parents) if path.exists())
    seen = str(directory) if there == directory else f"{directory} (will be made)"
    if not there.is_dir():
        yield Finding("data", "fail", seen, f"{there} is not a directory")
    elif not os.access(there, os.W_OK | os.X_OK):
        yield Finding("data", "fail", seen, f"this user may not write in {there}; choose another with --data")
    elif (free := shutil.disk_usage(there).free) < FREE_BYTES:
        yield Finding("data", "warn", seen, f"only {free // 2**20} MiB are free on this disk")
    else:
        yield Finding("data", "ok", seen)


def open_files() -> Finding:
    """Each connection is an open file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= OPEN_FILES:
        return Finding("open files", "ok", "no limit" if soft == resource.RLIM_INFINITY else str(soft))
    most = "unlimited" if hard == resource.RLIM_INFINITY else str(min(hard, 65536))
    return Finding("open files", "warn", f"{soft} at most", f"for many clients run `ulimit -n {most}` first")


def server(url: str, token: str | None) -> Finding:
    """A server answers. Only one that was asked for by name must be there."""
    try:
        with Client(url, token, timeout=5) as client:
            answer = client.stats()
    except ServerNotReached as error:
        result: Literal["warn", "fail"] = "warn" if url == DEFAULT_URL else "fail"
        return Finding("server", result, str(error), "start one with `presque serve`, or say --url")
    except (ClientError, ValueError) as error:
        return Finding("server", "fail", str(error), f"is {url} a presque server, and is the token right?")
    size = answer.get("size", "?")
    seen = f"{answer.get('version', 'unknown version')} at {url}, {size} {'queue' if size == 1 else 'queues'}"
    if answer.get("version") != __version__:
        return Finding("server", "warn", seen, f"this command line is {__version__}: use the same version")
    return Finding("server", "ok", f"{seen}; store: {answer.get('redis', '?')}")
