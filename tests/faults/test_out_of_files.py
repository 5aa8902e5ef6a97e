"""No file is left for another connection: it is said once, nothing spins, and it passes."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import time
from pathlib import Path

from tests import rig

LIMIT = 120


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_running_out_of_files_is_logged_once_and_passes() -> None:
    with rig.server("--memory") as server, contextlib.ExitStack() as stack:
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
        for _ in range(2 * LIMIT):
            connection = socket.create_connection(("127.0.0.1", server.port), timeout=rig.PATIENCE)
            stack.callback(connection.close)
        rig.eventually(lambda: "server.out_of_files" in server.said())
        began, before = time.monotonic(), cpu_s(server.process.pid)
        while time.monotonic() - began < 2:
            with contextlib.suppress(OSError):
                stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=1))
            time.sleep(0.05)
        assert cpu_s(server.process.pid) - before < 1
        stack.close()
        rig.eventually(lambda: answers(server))
        assert server.said().count("server.out_of_files") == 1
        assert f"limit={LIMIT}" in server.said()


def answers(server: rig.Server) -> bool:
    try:
        return server.ask("GET", "/status/").status == 200
    except OSError:
        return False
