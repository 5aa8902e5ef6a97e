#!/usr/bin/env python3
"""Look up known faults of what presque stands on, with pip-audit, which asks pypi.org about each package.

python tools/audit.py    look them up, and say in one line what came of it

Exit code 0: no package has a known fault. 1: some have; each is named. 3: nothing could be looked up, and the
line says SKIPPED and why. A mirror of the packages knows of no faults: pip-audit would pass over every
package and call that a success, so what it has passed over is counted here. No step waits without a limit.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

NONE_KNOWN, SOME_KNOWN, SKIPPED = 0, 1, 3
INSTALL_WITHIN_S = 120
LOOK_UP_WITHIN_S = 180
ANSWER_WITHIN_S = 10


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="presque-audit-") as directory:
        try:
            status, line = judged(looked_up(Path(directory)))
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            status, line = SKIPPED, f"SKIPPED: {reason(error)}"
    print(f"audit: {line}")
    return status


def looked_up(directory: Path) -> Any:
    """What pip-audit answers about the packages of this environment. It has an environment of its own, since
    what it stands on itself is none of presque's."""
    asked = [sys.executable, "-m", "pip", "freeze", "--exclude-editable"]
    frozen = subprocess.run(asked, capture_output=True, text=True, timeout=INSTALL_WITHIN_S, check=True)
    packages = directory / "packages"
    packages.write_text(frozen.stdout)
    made = [sys.executable, "-m", "venv", str(directory / "own")]
    subprocess.run(made, capture_output=True, text=True, timeout=INSTALL_WITHIN_S, check=True)
    own = directory / "own" / "bin"
    install = [str(own / "pip"), "install", "--quiet", "pip-audit"]
    subprocess.run(install, capture_output=True, text=True, timeout=INSTALL_WITHIN_S, check=True)
    audit = [str(own / "pip-audit"), "--no-deps", "--disable-pip", "--progress-spinner", "off"]
    audit += ["--timeout", str(ANSWER_WITHIN_S), "--format", "json", "--requirement", str(packages)]
    # Its exit code is the same for a fault that it has found and for a service that it has not reached.
    done = subprocess.run(audit, capture_output=True, text=True, timeout=LOOK_UP_WITHIN_S, check=False)
    if not done.stdout.strip():
        raise ValueError(last_line(done.stderr) or "pip-audit has answered nothing")
    return json.loads(done.stdout)


def judged(answer: Any) -> tuple[int, str]:
    """An exit code and a line, of what pip-audit has answered."""
    packages = answer["dependencies"]
    known = [one for one in packages if "vulns" in one]
    faulty = [one for one in known if one["vulns"]]
    passed = f"; {len(packages) - len(known)} could not be looked up" if len(known) < len(packages) else ""
    if faulty:
        each = ", ".join(
            f"{one['name']} {one['version']} ({', '.join(fault['id'] for fault in one['vulns'])})"
            for one in faulty
        )
        return SOME_KNOWN, f"known faults: {each}{passed}"
    if not known:
        return (
            SKIPPED,
            f"SKIPPED: pypi.org, or the mirror in its place, knows none of {len(packages)} packages",
        )
    return NONE_KNOWN, f"{len(known)} packages have no known fault{passed}"


def reason(error: Exception) -> str:
    """Why nothing could be looked up, in a line."""
    if isinstance(error, subprocess.TimeoutExpired):
        return f"{Path(error.cmd[0]).name} took longer than {error.timeout:.0f} s"
    if isinstance(error, subprocess.CalledProcessError):
        return f"{Path(error.cmd[0]).name} failed: {last_line(error.stderr)}"
    return str(error)


def last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


if __name__ == "__main__":
    sys.exit(main())
