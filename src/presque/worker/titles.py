"""What `ps` shows of this process, where the package setproctitle is installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_shown = ""


def _module() -> Any:
    try:
        return import_module("setproctitle")
    except ImportError:
        return None


_titles = _module()


def title(text: str) -> None:
    """Show `presque worker: text`."""
    global _shown
    if _titles is not None and text != _shown:
        _shown = text
        _titles.setproctitle(f"presque worker: {text}")
