"""serve: read the settings, set up the log, hand over to the server."""

from __future__ import annotations

import logging

import click

from presque.cli.settings import loaded
from presque.errors import NoToken, SetupError
from presque.exits import FAILED, USAGE, Failure
from presque.log import catch_all, configure, is_json
from presque.worker import first_process

log = logging.getLogger("presque.server")


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
@click.option("--test-clock", is_flag=True, default=None, help="Let POST /clock move the time: for tests.")
@click.option("--fsync", metavar="always|everysec", help="How soon a job is on disk.  [default: always]")
@click.option("--maxmemory", metavar="SIZE", help="Most memory of presque's own store, such as 512MiB.")
@click.option(
    "--min-free-disk", metavar="SIZE", help="Refuse pushes when less disk is free.  [default: 256MiB]"
)
@click.option("--valkey-bin", metavar="PATH", help="The valkey-server to start as presque's own store.")
@click.option("--workers", metavar="N", help="Server processes.  [default: 1]")
@click.option("--namespace", metavar="NAME", help="Prefix of every key in the store.  [default: presque]")
@click.option("--max-body", metavar="SIZE", help="Largest request body.  [default: 1MiB]")
@click.option("--allow-host", metavar="NAME", multiple=True, help="Also answer to this Host. Repeatable.")
@click.option("--tls-cert", metavar="FILE", help="Speak TLS with this certificate (PEM).")
@click.option("--tls-key", metavar="FILE", help="Its key, unless the certificate file holds it.")
@click.option("--insecure", is_flag=True, default=None, help="Listen beyond this machine without tokens.")
@click.option(
    "--traces",
    is_flag=True,
    default=None,
    help="Send traces with OpenTelemetry, as the OTEL_… variables say.",
)
@click.option("--log-format", metavar="auto|plain|json", help="auto is plain on a terminal, else json.")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.  [default: info]")
def serve(
    config: str | None,
    redis_url: str | None,
    allow_host: tuple[str, ...],
    tls_cert: str | None,
    tls_key: str | None,
    **flags: str | bool | None,
) -> int:
    """Run the server.

    Without options it listens on http://127.0.0.1:5000 and keeps its data in your data directory.
    Settings come from a file, then PRESQUE_… variables, then these options; the last one said counts.
    """
    first_process.step_aside()  # in a container it has others' children to wait for
    named = {
        "redis.url": redis_url,
        "hosts": list(allow_host) or None,
        "tls.cert": tls_cert,
        "tls.key": tls_key,
    }
    found = loaded({**flags, **named}, config=config)
    settings = found.settings
    configure(settings.log_format, settings.log_level)
    catch_all()
    password = found.origins.get("redis.password")
    if password is not None and password.source == "flag":
        log.warning("server.password_seen flag=%s", password.name)

    from presque.server.serving import (
        run,  # The server is heavy; a mistake in the settings should not wait for it.
    )

    try:
        return run(found)
    except SetupError as error:
        code = USAGE if isinstance(error, NoToken) else FAILED  # no restart cures a missing token
        if not is_json(settings.log_format):
            raise Failure(str(error), code) from None
        log.critical("server.not_started reason=%s", error)
        return code
