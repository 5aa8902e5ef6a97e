"""What is shown of access tokens where somebody has put one that does not belong there: their ids."""

from __future__ import annotations

import re

_token = re.compile(r"(prq_[a-z0-9]{4,32})[_.][A-Za-z0-9_.-]{20,}")


def without_tokens(text: str) -> str:
    """The text without the secrets of the access tokens in it."""
    return _token.sub(r"\1_***", text)
