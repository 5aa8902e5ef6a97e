"""xmpp: be at an XMPP server, on the store of a server that runs."""

from __future__ import annotations

import click

from presque import log
from presque.cli.settings import loaded
from presque.exits import USAGE, Failure


@click.command(short_help="Let people and programs reach the queues over XMPP.")
@click.option("--jid", metavar="DOMAIN", help="The domain of presque at the server, such as presque.example.")
@click.option("--server", metavar="HOST:PORT", help="Its port for components.  [default: 127.0.0.1:5347]")
@click.option("--secret-file", metavar="FILE", help="A file with the secret that the server has for it.")
@click.option(
    "--allow", metavar="JID=RULE", multiple=True, help="Such as ana@example.org=push:mail*; repeatable."
)
@click.option(
    "--config",
    metavar="FILE",
    help="Settings file.  [default: ./presque.yaml, /etc/presque/presque.yaml]",
)
@click.option("--redis", "redis_url", metavar="URL", help="The store, as for serve.")
@click.option("--data", metavar="DIR", help="The data of presque's own store, as for serve.")
@click.option("--namespace", metavar="NAME", help="Prefix of every key in the store.  [default: presque]")
@click.option("--log-format", metavar="auto|plain|json", help="auto is plain on a terminal, else json.")
@click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error.  [default: info]")
def xmpp(
    jid: str | None,
    server: str | None,
    secret_file: str | None,
    allow: tuple[str, ...],
    config: str | None,
    redis_url: str | None,
    **flags: str | None,
) -> int:
    """Connect to an XMPP server as a component, and answer there for every queue.

    It works on the store of a `presque serve` that runs on this machine, or on one of your own. A `serve`
    whose settings have a section `xmpp` does the same by itself.
    """
    named = {
        "xmpp.jid": jid,
        "xmpp.server": server,
        "xmpp.secret_file": secret_file,
        "xmpp.allow": _allowed(allow) or None,
        "redis.url": redis_url,
    }
    settings = loaded({**flags, **named}, config=config).settings
    if settings.xmpp is None:
        raise Failure("say which domain presque has at the XMPP server: `xmpp.jid`, or --jid", USAGE)
    log.configure(settings.log_format, settings.log_level)

    from presque.server.serving import (
        run_xmpp,  # A mistake in the settings should not wait for the heavy parts.
    )

    return run_xmpp(settings)


def _allowed(texts: tuple[str, ...]) -> dict[str, list[str]]:
    """`ana@example.org=push:mail*` -> the account and its rules."""
    found: dict[str, list[str]] = {}
    for one in texts:
        account, equals, rule = one.partition("=")
        if not equals:
            raise click.UsageError(
                f"`--allow` should be an account and a rule, as in ana@example.org=*:*, not `{one}`"
            )
        found.setdefault(account, []).append(rule)
    return found
