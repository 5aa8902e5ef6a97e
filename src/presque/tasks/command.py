"""`presque worker TARGET…`: what the command of the server's distribution and that of the client's share."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from presque.client.client import Client
from presque.tasks import reloading
from presque.tasks.app import App
from presque.tasks.errors import WrongTask
from presque.tasks.finding import find
from presque.tasks.listing import listing
from presque.tasks.worker import AppWorker, Found
from presque.worker.settings import WrongSetting
from presque.worker.starting import set_up_logging
from presque.worker.worker import Worker
from presque.worker.worker import run as run_worker


def run(
    targets: Sequence[str],
    *,
    url: str | None,
    token: str | None,
    only: str | None,
    except_: str | None,
    log_format: str,
    log_level: str,
    reload: bool | None,
    show: bool | None,
    settings: Mapping[str, Any],
) -> int:
    """Run what the targets name until told to stop, and return the exit code.

    `url` is None unless it was given on the command line. With `reload` it is run again whenever its code has
    changed; with `show` it only says what there is. Raises a `PresqueError` for what is wrong with targets or
    settings, and a `ClientError` when the server refuses.
    """
    if reload and not show and not reloading.is_child():
        set_up_logging(log_format, log_level)
        return reloading.run(targets)
    if reloading.is_child():  # compiled code is told from older code by the second, which is too coarse here
        sys.dont_write_bytecode = True
    found = find(targets)
    set_up_logging(log_format, log_level)
    given = {name: value for name, value in settings.items() if value is not None}
    if len(targets) == 1 and ":" in targets[0] and found.classes and not show:
        if only is not None or except_ is not None:
            raise WrongSetting("`only` and `except` are for modules: use `queues` for a single worker class")
        worker: Worker = found.classes[0](url, token=token, **given)
        run_worker(worker)
        return 0
    base_url, said_token = _server(found, url, token)
    given["token"] = said_token
    worker_of_all = AppWorker(found, base_url, only=only, except_=except_, **given)
    if show:
        with Client(base_url, said_token) as client:
            print(listing(found, worker_of_all.lanes, client))  # noqa: T201  (what `--show` asks for)
        return 0
    worker_of_all.run_as_command()
    return 0


def _server(found: Found, url: str | None, token: str | None) -> tuple[str | None, str | None]:
    """The server and the token: as the command line says, else as the code does, if it does.

    What tasks push goes where the command line says, too.
    """
    apps = {id(task.app): task.app for task in found.tasks if isinstance(task.app, App)}
    for app in apps.values():
        app.base_url = app.base_url if url is None else url
        app.token = app.token if token is None else token
    servers = {(app.base_url, app.token) for app in apps.values()}
    if len(servers) > 1:
        raise WrongTask(
            "the Apps of these modules talk to several servers: run a worker for each, as MODULE:APP, or say"
            " with --url which server all of them mean"
        )
    return servers.pop() if servers else (url, token)
