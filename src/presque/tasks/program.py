"""The command `presque worker` without the server's libraries."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from presque.client.errors import ClientError
from presque.client.exits import exit_code
from presque.errors import PresqueError
from presque.exits import INTERRUPTED, USAGE
from presque.tasks.command import run as run_targets
from presque.worker import first_process
from presque.worker.settings import OPTIONS


def parser() -> argparse.ArgumentParser:
    """The command line: one flag for each setting."""
    found = argparse.ArgumentParser(prog="presque-worker", description="Run tasks and workers.")
    found.add_argument(
        "targets", metavar="TARGET", nargs="+", help="a module or package, MODULE:CLASS or MODULE:FUNCTION"
    )
    found.add_argument("--only", metavar="QUEUES", help="of modules, take jobs of these queues only")
    found.add_argument("--except", dest="except_", metavar="QUEUES", help="of modules, leave these out")
    found.add_argument("--list", dest="show", action="store_true", help="say what there is, and end")
    found.add_argument("--reload", action="store_true", help="start again when a file of the code changes")
    found.add_argument("--url", help="the server; also PRESQUE_URL")
    found.add_argument("--token", help="your access token; better in PRESQUE_TOKEN")
    for name, option in OPTIONS.items():
        flag = f"--{name.replace('_', '-')}"
        if option.kind == "switch":
            found.add_argument(flag, action="store_true", default=None, help=option.help)
        else:
            found.add_argument(flag, metavar=option.metavar, help=option.help)
    found.add_argument("--log-format", choices=("auto", "plain", "json"), default="auto")
    found.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    return found


def main(arguments: Sequence[str]) -> int:
    """Run the worker and return an exit code, as `presque worker` does."""
    asked = vars(parser().parse_args(arguments))
    first_process.step_aside()
    try:
        return run_targets(
            asked.pop("targets"), reload=asked.pop("reload"), show=asked.pop("show"),
            url=asked.pop("url"), token=asked.pop("token"),
            only=asked.pop("only"), except_=asked.pop("except_"),
            log_format=asked.pop("log_format"), log_level=asked.pop("log_level"), settings=asked,
        )  # fmt: skip
    except (PresqueError, ClientError) as error:
        print(f"presque-worker: {error}", file=sys.stderr)  # noqa: T201  (a program's own message)
        return USAGE if isinstance(error, PresqueError) else exit_code(error)
    except KeyboardInterrupt:
        return INTERRUPTED
