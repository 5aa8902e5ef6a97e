"""A server with something to look at: queues that work, one that is stopped, one that nobody works on, one
whose jobs fail, many small ones, recurring jobs; and traffic that goes on."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from presque import Client

WORKERS = """
import random, time
from presque import Worker

random.seed(7)

class Mail(Worker):
    queues = "mail,thumbs"
    def work(self, job):
        time.sleep(random.uniform(0.01, 0.08))
        if random.random() < 0.02:
            raise ConnectionError(f"smtp: 451 try again later (id {random.randrange(10**6)})")

class Video(Worker):
    queues = "video"
    def work(self, job):
        if job["file"].endswith(".avi"):
            raise ValueError(f"no such codec: {random.choice(['cvid', 'iv50'])}")
        for step in range(20):
            self.job.progress({"percent": 5 * step, "frame": step * 240})
            time.sleep(0.4)
"""

FILES = ("holiday.mkv", "talk.mp4", "intro.avi", "demo.webm", "old.avi")


def fill(client: Client, *, jobs: int = 300, queues: int = 60) -> None:
    """What is there before anybody looks."""
    for name, policy in (
        ("video", {"lease": 120, "max_attempts": 2, "backoff": {"first": 1, "most": 2}, "keep": 3600}),
        ("mail", {"keep": 600, "backoff": {"first": 2, "most": 60}}),
        ("thumbs", {"keep": 60}),
    ):
        client.change_policy(name, **policy)
    for number in range(16):
        client.push("video", {"file": FILES[number % 5], "size": 2**63 + number, "user": f"u{number}"})
    client.push_many("reports", [{"kind": "daily", "for": f"2026-11-{1 + n % 28:02}"} for n in range(40)])
    client.stop("reports")
    client.push_many("invoices", [{"order": 9007199254740993 + n, "total": 12.50} for n in range(37)])
    for n in range(12):
        client.push("reminders", {"to": f"user-{n}", "text": "Your trial ends"}, delay=3600 * (n + 1))
    for first in range(0, queues, 200):
        for n in range(first, min(first + 200, queues)):
            client.push_many(f"tenant-{n:04}", [{"tenant": n, "job": m} for m in range(1 + n % 7)])
    for first in range(0, jobs, 1000):
        client.push_many("imports", [{"row": n} for n in range(first, min(first + 1000, jobs))])
    client.put_cron("nightly-report", "reports", {"kind": "nightly"}, "30 2 * * *", timezone="Europe/Paris")
    client.put_cron("heartbeat", "thumbs", {"file": "pulse.png"}, "@every 1m")
    client.put_cron("invoice-run", "invoices", {"run": True}, "0 6 1 * *")
    client.pause_cron("invoice-run")


@contextlib.contextmanager
def at_work(url: str) -> Iterator[None]:
    """Real workers that take jobs, and somebody who pushes some, until the end."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as closing:
        (Path(folder) / "demo_workers.py").write_text(WORKERS)
        for name, slots in (("Mail", "4"), ("Video", "2")):
            command = [sys.executable, "-m", "presque", "worker", f"demo_workers:{name}", "--url", url]
            worker = subprocess.Popen(
                [*command, "--concurrency", slots, "--log-level", "error"],
                cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            closing.callback(worker.wait, timeout=60)
            closing.callback(worker.terminate)
        ended = threading.Event()
        pushing = threading.Thread(target=_push, args=(url, ended))
        closing.callback(pushing.join)
        closing.callback(ended.set)
        pushing.start()
        yield


def _push(url: str, ended: threading.Event) -> None:
    with Client(url) as client:
        number = 0
        while not ended.wait(0.05):
            number += 1
            client.push("mail", {"to": f"user-{number}@example.org", "template": "welcome"})
            if number % 3 == 0:
                client.push("thumbs", {"file": f"{number}.png"})
            if number % 40 == 0:
                client.push("video", {"file": FILES[number // 40 % 5], "user": f"u{number}"})
