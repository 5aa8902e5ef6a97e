"""One browser for all tests of the dashboard; each test opens windows of its own."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests import rig

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
AWAY = "ERR_CONNECTION"
"""What the browser says of a server that is not there."""

Open = Callable[..., Page]
Npm = Callable[[str, str], Path]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium. Playwright's event loop runs as long as this, and no other may meanwhile: one for
    all modules would be in the way of tests that are coroutines."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=rig.require("chromium"), args=FLAGS)
        expect.set_options(timeout=rig.PATIENCE * 1000)
        yield browser
        browser.close()


@pytest.fixture
def window(browser: Browser) -> Iterator[Open]:
    """Opens the dashboard of a server. Afterwards no page may have complained, broken its
    Content-Security-Policy or asked anybody else for anything. `bears` are complaints that are expected."""
    with windows(browser) as opens:
        yield opens


@contextlib.contextmanager
def windows(browser: Browser) -> Iterator[Open]:
    """The same, for fixtures of a wider scope."""
    complaints: list[str] = []
    borne = [AWAY]
    asked: list[tuple[str, str]] = []
    with contextlib.ExitStack() as closing:

        def opens(
            url: str, at: str = "", *, scheme: str = "light", width: int = 1280, height: int = 800,
            bears: tuple[str, ...] = (),
        ) -> Page:  # fmt: skip
            context = browser.new_context(
                color_scheme=scheme,  # type: ignore[arg-type]
                viewport={"width": width, "height": height},
            )
            closing.callback(context.close)
            borne.extend(bears)
            page = context.new_page()
            page.set_default_timeout(rig.PATIENCE * 1000)
            page.on("console", lambda message: complaints.append(f"{message.text} {message.location}"))
            page.on("pageerror", lambda error: complaints.append(f"{error}\n{error.stack}"))
            page.on("request", lambda request: asked.append((url, request.url)))
            page.goto(f"{url}/{at}")
            return page

        yield opens
    assert [text for text in complaints if not any(one in text for one in borne)] == []
    assert asked
    assert [there for here, there in asked if not there.startswith(here)] == []


@pytest.fixture(scope="session")
def npm(tmp_path_factory: pytest.TempPathFactory) -> Npm:
    """Fetches a package that only tests need, and returns the folder `node_modules`. Without npm or a network
    the test is skipped on a laptop, and fails in CI."""
    found = os.environ.get("TEST_NODE_MODULES")
    folder = Path(found) if found else tmp_path_factory.mktemp("npm")

    def fetch(name: str, version: str) -> Path:
        if not (folder / "node_modules" / name).exists():
            command = [rig.require("npm"), "install", "--silent", "--no-save", "--prefix", str(folder)]
            done = subprocess.run([*command, f"{name}@{version}"], check=False, timeout=60)
            if done.returncode:
                (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"npm does not get {name}")
        return folder / "node_modules"

    return fetch


@pytest.fixture(scope="session")
def static() -> Path:
    """The folder of what browsers load."""
    return Path(__file__).resolve().parents[2] / "src" / "presque" / "dashboard" / "static"
