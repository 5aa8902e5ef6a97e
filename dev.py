#!/usr/bin/env python3
"""From nothing but Python 3.11: an environment in .venv, presque in it, then the server or the tests.

python3 dev.py serve [FLAGS]   install presque and start the server
python3 dev.py test [FLAGS]    install what the tests need; lint, check types and imports, run every test
python3 dev.py run COMMAND     install the same and run COMMAND in the environment
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv"
PYTHON = VENV / "bin" / "python"
EVERY_CORE = ("-n", "auto", "--dist", "worksteal")
AGAIN = ("--reruns", "1")  # in CI alone; the summary names what passed only then, and that is a fault to find
AUTO = ("PYTEST_XDIST_AUTO_NUM_WORKERS", str((os.cpu_count() or 1) + 2))  # many tests wait, and use no core
UNKEPT = "PYTHONDONTWRITEBYTECODE"  # what images of containers often set; tests start presque by the thousand
BANDIT = ["bandit", "--quiet", "--recursive", "src", "--configfile", "pyproject.toml"]
IMPORTS = ["lint-imports", "--no-cache"]
COLLECT = ["pytest", "--collect-only", "-qq"]  # compiles the tests once, and not in each worker
CHECKS = (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"], IMPORTS, BANDIT, COLLECT)


def main(arguments: list[str]) -> int:
    if sys.version_info < (3, 11):  # noqa: UP036 (whoever runs this has not read pyproject.toml)
        return complain(f"presque needs Python 3.11 or later, and this is {sys.version.split()[0]}")
    command, rest = (arguments[0] if arguments else ""), arguments[1:]
    os.environ.setdefault(*AUTO)
    os.environ.pop(UNKEPT, None)
    if command == "serve":
        install(".")
        os.execv(PYTHON, [str(PYTHON), "-m", "presque", "serve", *rest])
    if command == "test":
        install(".[dev]")
        if status := check():
            return status
        again = AGAIN if os.environ.get("CI") else ()
        return subprocess.call([str(PYTHON), "-m", "pytest", *EVERY_CORE, *again, *rest], cwd=HERE)
    if command == "run" and rest:
        install(".[dev]")
        paths = f"{VENV / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}"
        os.execvpe(rest[0], rest, {**os.environ, "PATH": paths, "VIRTUAL_ENV": str(VENV)})
    print(__doc__.strip() if __doc__ else "", file=sys.stderr)
    return 2


def install(what: str) -> None:
    """Put presque into .venv, from this folder, unless exactly that was done before."""
    wanted = hashlib.sha256(
        (what + sys.version).encode() + (HERE / "pyproject.toml").read_bytes()
    ).hexdigest()
    done = VENV / "installed"
    marks = done.read_text().split() if done.exists() else []
    if wanted in marks:
        return
    print(f"Installing presque into {VENV} …", file=sys.stderr, flush=True)
    if not (PYTHON.exists() and (VENV / "bin" / "pip").exists()):  # pip comes last
        try:
            venv.create(VENV, with_pip=True, clear=True)
        except (subprocess.CalledProcessError, ImportError):
            sys.exit(complain("this Python cannot make environments; on Debian: apt install python3-venv"))
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-e", what]
    if status := subprocess.call(pip, cwd=HERE):
        sys.exit(status)
    done.write_text("\n".join([*marks, wanted]))


def check() -> int:
    """Run all checks beside each other, and print what those have found that are not content."""
    status, begun = 0, []
    for command in CHECKS:
        whole = [str(PYTHON.with_name(command[0])), *command[1:]]
        process = subprocess.Popen(
            whole, cwd=HERE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        begun.append((command, process))
    for command, process in begun:
        print("+", *command, flush=True)
        found, _ = process.communicate()
        if process.returncode:
            print(found, end="", flush=True)
        status = status or process.returncode
    return status


def complain(text: str) -> int:
    print(f"dev.py: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
