"""`python -m presque.server.throw_away [PID]`: a server for the tests of one process, on a free port.

It is `presque serve --memory --test-clock --port 0` without a command line, and without settings to read. The
process of its store is started before anything else is imported, since it needs a while for itself. On Linux
it ends when the process PID, which started it, does.
"""

from __future__ import annotations

import gc
import sys

gc.disable()  # until all is imported: see serving.py

import uvloop  # noqa: E402

from presque.errors import SetupError  # noqa: E402
from presque.server.stopping import stop_signal  # noqa: E402
from presque.store.embedded import EmbeddedSettings, running  # noqa: E402
from presque.store.process import die_with_parent  # noqa: E402


def main(parent: int | None = None) -> int:
    """Serve until a signal says stop, and return the exit code."""
    if parent is not None:
        die_with_parent(parent)()
    try:
        uvloop.run(_run())
    except SetupError as error:
        print(f"presque: {error}", file=sys.stderr)  # noqa: T201  (a program's own message)
        return 1
    return 0


async def _run() -> None:
    stop = stop_signal()
    async with running(EmbeddedSettings(directory=None)) as starting:
        from presque.config.loading import Loaded
        from presque.config.settings import Settings
        from presque.log import catch_all, configure
        from presque.server.serving import listen, serve

        settings = Settings(port=0, memory=True, test_clock=True, log_format="plain", log_level="warning")
        configure(settings.log_format, settings.log_level)
        catch_all()
        with listen(settings) as listener:
            await serve(Loaded(settings, {}), listener, starting, stop)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2])))
