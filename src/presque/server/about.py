"""What a server says about itself: in `GET /stats/`, in its log, and on the first screen."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from presque.config import settings as config
from presque.config.loading import Loaded
from presque.config.settings import Settings
from presque.quantities import GIB, MIB, counted
from presque.store.address import Address
from presque.store.data_files import Cut
from presque.store.disk import Disk
from presque.store.greeting import StoreInfo
from presque.version import __version__


def describe(
    settings: Settings, address: Address, info: StoreInfo, disk: Disk, found: tuple[int, int]
) -> dict[str, Any]:
    """What /stats/ says of the server itself. `found` is how many jobs in how many queues the start found."""
    jobs, queues = found
    return {
        "redis": f"{info} at {address}" if settings.redis else f"embedded {info}, {place(settings)}",
        "durability": durability(settings, info),
        "version": __version__,
        "found_at_start": {"jobs": jobs, "queues": queues},
        "disk": None
        if disk.directory is None
        else {"free": disk.free, "min_free": disk.least, "full": disk.full},
    }


def first_token(settings: Settings) -> str:
    """How to make the first access token of the store that these settings mean, in the middle of a
    sentence."""
    if settings.memory:
        return "a store in memory has none when it starts, so pass --data DIR instead of --memory"
    said = ["token", "new", "admin", "--allow", "*:*"]
    if settings.namespace != Settings().namespace:
        said += ["--store-namespace", settings.namespace]
    if settings.redis is not None:
        said += ["--redis", settings.redis.address]
    else:
        said += ["--data", str(config.data_directory(settings))]
    made = f"make the first one with `{command()} {shlex.join(said)}`"
    if settings.redis is not None and settings.redis.password is not None:
        made += " and its password in PRESQUE_REDIS"
    return made


def place(settings: Settings) -> str:
    """Where our own store keeps its data."""
    directory = config.data_directory(settings)
    return "in memory" if directory is None else f"data in {directory}"


def durability(settings: Settings, info: StoreInfo) -> str:
    """What a crash can lose, in a sentence."""
    if settings.memory:
        return "Nothing is kept: every job is lost when the store stops."
    if info.eviction != "noeviction":
        return f"The store throws jobs away when memory is short: its maxmemory-policy is {info.eviction}."
    if not info.persistent:
        return "The store keeps no log of its writes: jobs are lost when it stops, unless it makes snapshots."
    if info.fsync == "always":
        return "Every job is on disk before its 201; a crash or a power cut loses none."
    if info.fsync == "everysec":
        return "A crash of presque or the store loses no job; a power cut can lose the last second or two."
    return (
        f"The store decides when jobs reach its disk (appendfsync {info.fsync}), and so what a crash loses."
    )


def first_screen(
    url: str, about: dict[str, Any], file: Path | None, cuts: Sequence[Cut], tls: str | None = None
) -> str:
    """What a person reads after `presque serve`. `tls` is a sentence about its certificate, if it has one."""
    found, clock = about["found_at_start"], "test_clock" in about
    lines = [
        f"presque {__version__} answers at {url}",
        "Open that address in a browser to see the queues.",
        f"Store: {about['redis']}. {about['durability']}",
        f"Found: {counted(found['jobs'], 'job')} in {counted(found['queues'], 'queue')}."
        + _room(about["disk"]),
        f"Settings: {file or 'no file was read'}; `presque config show` lists them.",
        *([] if tls is None else [f"TLS: {tls}"]),
        *(["TEST CLOCK: `POST /clock` moves the time of this server. Use it for nothing but tests."] * clock),
    ]
    lines += [
        f"WARNING: a crash tore the end of {cut.file}: {counted(cut.size, 'byte')} were cut off and are in "
        f"{cut.kept_in}"
        for cut in cuts
    ]
    at = "" if url == "http://127.0.0.1:5000" else f" --url {url}"
    lines += [
        "",
        "Try it:",
        f'  {command()} push hello \'{{"to": "you"}}\'{at}',
        f'  curl {url}/q/hello -d \'{{"to": "you"}}\'',
        f"  curl {url}/q/hello",
        f"  curl {url}/stats/",
        "",
        "Ctrl-C stops it.",
    ]
    return "\n".join(lines)


def _room(disk: dict[str, Any] | None) -> str:
    if disk is None or disk["free"] is None:
        return ""
    said = f" Free disk: {size_of(disk['free'])}"
    if disk["full"]:
        return f"{said}, less than `min_free_disk` ({size_of(disk['min_free'])}): PUSHES ARE REFUSED."
    return f"{said}."


def command() -> str:
    """How to call `presque` from where this process was called, for a line to copy."""
    called = Path(sys.argv[0])
    if called.name != "presque":
        return f"{shlex.quote(sys.executable)} -m presque"
    found = shutil.which("presque")
    if found is not None and os.path.realpath(found) == os.path.realpath(called):
        return "presque"
    return shlex.quote(str(called))


def size_of(count: int) -> str:
    """A number of bytes for people."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count // MIB} MiB"


def settings_said(found: Loaded) -> list[dict[str, Any]]:
    """The settings and who said so, as `GET /server` shows them. Secrets are masked."""
    return [
        {
            "setting": one.setting,
            "value": str(one.value) if isinstance(one.value, Path) else one.value,
            "from": one.origin.short,
        }
        for one in found.entries()
    ]


def store_facts(raw: bytes) -> dict[str, Any]:
    """What INFO of a store says that an operator wants to know."""
    lines = (line.partition(":") for line in raw.decode(errors="replace").splitlines())
    info = {name: value for name, _, value in lines}

    def number(name: str) -> int:
        return int(info[name]) if info.get(name, "").isdigit() else 0

    return {
        "uptime_seconds": number("uptime_in_seconds"),
        "memory": {"used": number("used_memory"), "limit": number("maxmemory") or None},
        "clients": number("connected_clients"),
        "commands_per_second": number("instantaneous_ops_per_sec"),
        "fsyncs_pending": number("aof_pending_bio_fsync"),
        "fsyncs_delayed": number("aof_delayed_fsync"),
        "last_write": info.get("aof_last_write_status", "ok"),
    }
