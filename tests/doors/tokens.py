"""Servers that want access tokens, and tokens of every kind."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests import rig


def first_token(*flags: str) -> str:
    """Make the first token directly in the store, as the command line does it."""
    words = ["-m", "presque", "token", "new", "admin", "--allow", "*:*", *flags]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    token = done.stdout.strip()
    assert re.fullmatch(r"prq_[a-z0-9]{10}_[A-Za-z0-9_-]{43}", token)
    return token


class Guarded:
    """A server that wants access tokens, and an admin who makes them."""

    def __init__(self, server: rig.Server, admin: str) -> None:
        self.server = server
        self.admin = admin

    def ask(self, token: str | None, method: str, path: str, body: Any = None, **headers: str) -> rig.Answer:
        """Send one request with this token."""
        return self.send(token, method, path, body, **headers).answer()

    def send(self, token: str | None, method: str, path: str, body: Any = None, **headers: str) -> rig.Sent:
        """The same, without reading the answer."""
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        sent = body if body is None or isinstance(body, str) else json.dumps(body)
        return self.server.send(method, path, sent, 30, **headers)

    def make(self, *allow: str, **more: Any) -> str:
        """A new token."""
        return str(self.made(*allow, **more)["token"])

    def made(self, *allow: str, **more: Any) -> Any:
        """A new token, and what is known of it."""
        answer = self.ask(self.admin, "POST", "/tokens", {"name": "test", "allow": allow, **more})
        assert answer.status == 201, answer
        return answer.json

    def ending(self, *allow: str, seconds: float) -> str:
        """A new token that is good for so long."""

        def make() -> str | None:
            fields = {"name": "test", "allow": allow, "expires": time.time() + seconds}
            answer = self.ask(self.admin, "POST", "/tokens", fields)
            if answer.status == 400:  # the moment was over before the server heard of it
                assert "`expires` should be a moment in the future" in answer.json["error"]
                return None
            return str(answer.json["token"])

        return str(rig.eventually(make))

    def catch_up(self) -> None:
        """See `rig.Door.catch_up`."""
        self.server.catch_up(Authorization=f"Bearer {self.admin}")

    def revoke(self, token: str) -> None:
        """Make a token invalid."""
        assert self.ask(self.admin, "DELETE", f"/tokens/{id_of(token)}").status == 204

    def revoked(self) -> str:
        """A token that was valid."""
        token = self.make("*:*")
        self.revoke(token)
        return token

    def expired(self) -> str:
        """A token that was valid."""
        token = self.ending("*:*", seconds=0.3)
        rig.eventually(lambda: self.ask(token, "GET", "/openapi.json").status == 401)
        return token


def id_of(token: str) -> str:
    """A token's id."""
    return re.split(r"[_.]", token)[1]


@contextlib.contextmanager
def guarded(directory: Path, *flags: str, **environment: str) -> Iterator[Guarded]:
    """A server of its own with one token."""
    data = str(directory / "presque")
    admin = first_token("--data", data)
    with rig.server("--data", data, *flags, **environment) as server:
        yield Guarded(server, admin)
