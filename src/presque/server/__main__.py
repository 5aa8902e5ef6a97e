"""`python -m presque.server`: one process of a fleet, started by fleet.py."""

from __future__ import annotations

import uvloop

from presque.server.serving import serve_in_fleet

if __name__ == "__main__":
    uvloop.run(serve_in_fleet())
