#!/usr/bin/env python3
"""Makes the synchronous client of the asynchronous one, so that the two cannot drift apart.

    python tools/unasync.py           write src/presque/client/client.py again
    python tools/unasync.py --check   exit with 1 if that would change it

The text is changed by the rules below, in docstrings too, and then formatted with ruff. What only makes sense
on an event loop stands between the comments `# async only: begin` and `# async only: end`, or on a line that
ends with `# async only`. Every rule must find something: one that does not is out of date.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

CLIENT = Path(__file__).resolve().parents[1] / "src" / "presque" / "client"
FROM, TO = CLIENT / "async_client.py", CLIENT / "client.py"

WARNING = "# Made by tools/unasync.py of async_client.py: change that file, and run the tool again.\n"

RULES = (
    # what is for asyncio alone
    (r"(?ms)^ *# async only: begin\n.*?# async only: end\n\n?", ""),
    (r"(?m)^.*# async only\n", ""),
    # the words of the documentation
    (r"AsyncClient: one coroutine per verb, on asyncio\.", "Client: one method per verb."),
    (
        r"server, from any event loop, and from several at once\. Any number of tasks may share it\.",
        "server. Any number of threads may share it, and a forked child may use it.",
    ),
    (r"once, 100 by default, in each event loop; further", "once, 100 by default; further"),
    # the language
    (r"\(await (self\.perform\(\w+\))\)", r"\1"),
    (r"\bawait ", ""),
    (r"\basync (def|with|for) ", r"\1 "),
    (r"__aenter__", "__enter__"),
    (r"__aexit__", "__exit__"),
    (r"\bAsync(Client|Transport)\b", r"\1"),
    (r"\basync_transport import Transport\b", "transport import Transport"),
)


def synchronous(text: str) -> str:
    """The text of the synchronous client."""
    for pattern, replacement in RULES:
        text, count = re.subn(pattern, replacement, text)
        if count == 0:
            sys.exit(f"unasync: nothing in {FROM.name} is like {pattern!r} any more")
    left = re.search(r"\b(await|async|asyncio)\b", text)
    if left is not None:
        line = text.count("\n", 0, left.start()) + 1
        sys.exit(f"unasync: `{left[0]}` would be left in line {line}: add a rule or mark it")
    return _formatted(WARNING + text)


def _formatted(text: str) -> str:
    for command in (["check", "--fix", "--quiet", "--select", "I"], ["format"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(TO), "-"],
            input=text, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            sys.exit(f"unasync: ruff: {done.stderr}")
        text = done.stdout
    return text


def main(arguments: list[str]) -> int:
    text = synchronous(FROM.read_text("utf-8"))
    if text == TO.read_text("utf-8"):
        return 0
    if arguments == ["--check"]:
        print(f"{TO.name} is not what {FROM.name} makes of it: run python tools/unasync.py", file=sys.stderr)
        return 1
    TO.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
