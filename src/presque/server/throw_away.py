"""`python -m presque.server.throw_away`: a server for the tests of one process, on a free port.

It is `presque serve --memory --test-clock --port 0` without a command line and without settings: reading
those takes about as long as the rest of its start.
"""

from __future__ import annotations

import gc
import sys

gc.disable()  # until all is imported: what is imported stays, and looking through it is a tenth of the start

from presque.config.loading import Loaded  # noqa: E402
from presque.config.settings import Settings  # noqa: E402
from presque.errors import SetupError  # noqa: E402
from presque.log import catch_all, configure  # noqa: E402
from presque.server.serving import run  # noqa: E402

SETTINGS = Settings(port=0, memory=True, test_clock=True, log_format="plain", log_level="warning")


def main() -> int:
    """Serve until a signal says stop, and return the exit code."""
    configure(SETTINGS.log_format, SETTINGS.log_level)
    catch_all()
    try:
        return run(Loaded(SETTINGS, {}))
    except SetupError as error:
        print(f"presque: {error}", file=sys.stderr)  # noqa: T201  (a program's own message)
        return 1


if __name__ == "__main__":
    sys.exit(main())
