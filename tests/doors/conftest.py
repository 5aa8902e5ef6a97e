"""A server of its own for the scenarios of the classic routes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests import chatting, rig


@pytest.fixture(scope="session")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rig.Door]:
    """Not the shared one, since the tests of /stats/ count queues."""
    with rig.server("--data", str(tmp_path_factory.mktemp("door") / "presque")) as found:
        yield found


@dataclass
class Chatting:
    """An XMPP server, and a presque that is a component of it."""

    prosody: chatting.Prosody
    server: rig.Server


@pytest.fixture(scope="session")
def xmpp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chatting]:
    """Shared by all tests that do not harm them."""
    data = str(tmp_path_factory.mktemp("xmpp") / "presque")
    with chatting.prosody() as prosody, rig.server("--data", data, **chatting.settings(prosody)) as server:
        rig.eventually(lambda: any("xmpp.connected" in line for line in server.everything))
        yield Chatting(prosody, server)
