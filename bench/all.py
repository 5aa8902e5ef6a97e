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
import counting
import cpu
import crons
import dashboard
import fetch_http
import fsync
import gathering
import history
import lease_cpu
import leases
import many_names
import many_queues
import memory
import push_http
import push_lines
import rig
import slow_clients
import slow_routes
import startup
import tasks
import throw_away
import tls
import tokens
import traces
import waiters
import websocket
import workers
import xmpp

MODULES = (
    push_http,
    push_lines,
    fetch_http,
    fsync,
    cpu,
    slow_routes,
    slow_clients,
    tls,
    tokens,
    traces,
    counting,
    memory,
    waiters,
    startup,
    throw_away,
    tasks,
    many_queues,
    many_names,
    leases,
    lease_cpu,
    checksum,
    crons,
    gathering,
    history,
    websocket,
    xmpp,
    broadcast,
    clients,
    dashboard,
    workers,
)

if __name__ == "__main__":
    sys.exit(rig.main([module.SCRIPT for module in MODULES], __doc__))
