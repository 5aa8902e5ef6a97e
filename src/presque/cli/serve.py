"""serve: read the settings, set up the log, hand over to the server."""

from __future__ import annotations

import click

from presque import log
from presque.cli.settings import bind_warning, loaded


@click.command(short_help="Run the server.")
@click.option("--host", metavar="ADDRESS", help="Listen on this address.  [default: 127.0.0.1]")
@click.option("--port", metavar="N", help="Listen on this port; 0 takes a free one.  [default: 5000]")
@click.option(
    "--config",
    metavar="FILE",
    help="Settings file.  [default: ./presque.yaml, /etc/presque/presque.yaml]",
)
@click.option(
    "--redis",
    "redis_url",
    metavar="URL",
    help="Use this store: redis://, rediss:// or unix://. A password is better in PRESQUE_REDIS.",
)
@click.option("--data", metavar="DIR", help="Where presque's own store keeps its data.")
@click.option("--memory", is_flag=True, default=None, help="Keep nothing: for tests.")
@click.option("--fsync", metavar="always|everysec", help="How soon a job is on disk.  [default: always]")
@click.option("--maxmemory", metavar="SIZE", help="Most memory of presque's own store, such as 512MiB.")
@click.option(
    "--min-free-disk", metavar="SIZE", help="Refuse pushes below this free disk.  [default: 256MiB]"
)
@click.option("--valkey-bin", metavar="PATH", help="The valkey-server to start as presque's own store.")
@click.option("--workers", metavar="N", help="Server processes.  [default: 1]")
@click.option("--namespace", metavar="NAME", help="Beginning of every key in the store.  [default: presque]")
@click.option("--max-body", metavar="SIZE", help="Largest request body.  [default: 1MiB]")
@click.option("--allow-host", metavar="NAME", multiple=True, help="Answer to this Host, too. Repeatable.")
@click.option("--insecure", is_flag=True, default=None, help="Listen beyond this machine without tokens.")
@click.option("--log-format", metavar="auto|plain|json", help="auto is plain on a terminal, else json.")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.  [default: info]")
def serve(
    config: str | None, redis_url: str | None, allow_host: tuple[str, ...], **flags: str | bool | None
) -> int:
    """Run the server.

    Without options it listens on http://127.0.0.1:5000 and keeps its data in your data directory.
    Settings come from a file, then PRESQUE_… variables, then these options; the last one said counts.
    """
    found = loaded({**flags, "redis.url": redis_url, "hosts": list(allow_host) or None}, config=config)
    settings = found.settings
    bind_warning(settings)  # which the server logs
    log.configure(settings.log_format, settings.log_level)

    from presque.server import run  # The server is heavy; a mistake in the settings should not wait for it.

    return run(settings, found.file)
