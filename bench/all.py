"""Run every bench in order, and print one table of what came out.

Takes about twenty minutes. Exit codes: 0 nothing missed, 1 something missed or broken, 2 a program is
missing.

run:          python bench/all.py
"""

from __future__ import annotations

import sys

import broadcast
import checksum
import clients
import cpu
import crons
import fetch_http
import fsync
import gathering
import lease_cpu
import leases
import many_queues
import memory
import push_http
import push_lines
import rig
import slow_routes
import startup
import waiters
import websocket
import workers

MODULES = (
    push_http,
    push_lines,
    fetch_http,
    fsync,
    cpu,
    slow_routes,
    memory,
    waiters,
    startup,
    many_queues,
    leases,
    lease_cpu,
    checksum,
    crons,
    gathering,
    websocket,
    broadcast,
    clients,
    workers,
)

if __name__ == "__main__":
    sys.exit(rig.main([module.SCRIPT for module in MODULES], __doc__))
