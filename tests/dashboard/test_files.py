"""What the page loads: fetched once, small, as the lock says, and typed."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from pathlib import Path

from presque.dashboard.pages import pages
from tests import rig
from tests.dashboard.conftest import Npm

ROOT = Path(__file__).resolve().parents[2]
MOST_BYTES = 120_000
TYPESCRIPT = "7.0.2"


def test_a_browser_fetches_each_part_once_and_asks_only_for_the_page_again(server: rig.Server) -> None:
    first = server.ask("GET", "/")
    assert first.headers["cache-control"] == "no-cache"
    assert "require-trusted-types-for 'script'" in first.headers["content-security-policy"]
    assert server.ask("GET", "/", If_None_Match=first.headers["etag"]).status == 304
    parts = re.findall(r'(?:src|href)="(static/[^"]+)"', first.body.decode())
    assert len(parts) > 10
    for path in parts:
        plain = server.ask("GET", f"/{path}")
        packed = server.ask("GET", f"/{path}", Accept_Encoding="br, gzip")
        assert "immutable" in plain.headers["cache-control"]
        assert (packed.headers["content-encoding"], plain.headers["vary"]) == ("gzip", "Accept-Encoding")
        assert gzip.decompress(packed.body) == plain.body
        assert server.ask("GET", f"/{path}", If_None_Match=packed.headers["etag"]).status == 304
        assert server.ask("GET", f"/{path}", Accept_Encoding="gzip;q=0").body == plain.body
        assert server.ask("HEAD", f"/{path}").status == 200


def test_below_a_path_the_page_loads_from_there(server: rig.Server) -> None:
    """A proxy that serves it at `/jobs` has taken that off, whether a slash followed or not."""
    body = server.ask("GET", "/", X_Forwarded_Prefix="/jobs").body.decode()
    assert 'href="static/' in body  # the header of somebody who is no believed proxy
    assert b'src="/jobs/static/' in pages()["/"].under("/jobs").content


def test_the_whole_dashboard_is_small() -> None:
    assert sum(len(page.packed) for page in pages().values()) < MOST_BYTES


def test_what_others_wrote_is_as_the_lock_says() -> None:
    done = subprocess.run(
        [sys.executable, "tools/vendor.py", "check"], cwd=ROOT, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"")


def test_nothing_makes_markup_out_of_a_text(static: Path) -> None:
    for file in static.rglob("*.js"):
        if "vendor" not in file.parts:
            text = file.read_text()
            assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), (
                file
            )


def test_the_modules_are_typed(npm: Npm) -> None:
    """As `tsc` checks them, from the comments."""
    compiler = npm("typescript", TYPESCRIPT) / ".bin" / "tsc"
    project = str(ROOT / "src" / "presque" / "dashboard" / "jsconfig.json")
    done = subprocess.run([compiler, "--project", project], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("", 0)
