"""`python -m presque.worker MODULE:CLASS`: the command `presque worker` without the server's libraries.

The distribution `presque-client` installs it as `presque-worker`, too.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from presque.client.errors import ClientError
from presque.errors import PresqueError
from presque.worker import first_process
from presque.worker.loading import load
from presque.worker.settings import OPTIONS
from presque.worker.starting import set_up_logging


def parser() -> argparse.ArgumentParser:
    """The command line: one flag for each setting."""
    found = argparse.ArgumentParser(prog="python -m presque.worker", description="Run a worker.")
    found.add_argument("target", metavar="MODULE:CLASS", help="the worker")
    found.add_argument("--url", help="the server; also PRESQUE_URL")
    found.add_argument("--token", help="who you are; better in PRESQUE_TOKEN")
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
    """Run the worker and return an exit code: 2 when a setting is wrong, 1 when the server refuses."""
    asked = vars(parser().parse_args(arguments))
    first_process.step_aside()
    try:
        kind = load(asked.pop("target"))
        set_up_logging(asked.pop("log_format"), asked.pop("log_level"))
        kind(asked.pop("url"), **asked).start()
    except (PresqueError, ClientError) as error:
        print(f"presque.worker: {error}", file=sys.stderr)  # noqa: T201
        return 2 if isinstance(error, PresqueError) else 1
    return 0


def run() -> int:
    """The same with the arguments of this process."""
    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run())
