"""`python -m presque.tasks TARGET…`: see `presque.tasks.program`.

The distribution `presque-client` installs it as `presque-worker`, too.
"""

from __future__ import annotations

import sys

from presque.exits import heed_signals


def run() -> int:
    """The entry point."""
    heed_signals()
    from presque.tasks.program import main

    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(run())
