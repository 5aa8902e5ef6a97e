"""`presque`, also called as `python -m presque`.

Ctrl-C never makes a traceback: while the modules are imported, and after the last line of a command, it ends
the process as it ends other programs. So do TERM and its like, also as process 1.
"""

from __future__ import annotations

import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """The entry point."""
    heeded = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # else it is to be ignored
    if heeded:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from presque.exits import INTERRUPTED, heed_signals, raise_what_is_dropped

    heed_signals()
    from presque.cli.main import main as carry_out

    raise_what_is_dropped()

    try:
        if heeded:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        carry_out()
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        if heeded:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
