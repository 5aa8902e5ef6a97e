"""The guide to XMPP: its settings and commands work, and its chat goes on as it says."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests import chatting, rig
from tests.docs import documents
from tests.docs.test_examples import fits

GUIDE = documents.ROOT / "docs" / "guides" / "xmpp.md"
DEBIAN = 'VirtualHost "localhost"\n'  # what the guide finds there


def block(language: str) -> list[str]:
    """The lines of the one block in this language."""
    [found] = [one for one in documents.blocks(GUIDE) if one.language == language]
    return list(found.lines)


def turns() -> list[tuple[str, str]]:
    """What ana says, and what the queue answers."""
    found: list[tuple[str, list[str]]] = []
    for line in block("text"):
        who, _, said = line.partition(": ")
        if who == "ana":
            found.append((said, []))
        else:
            assert who == "mail"
            found[-1][1].append(said)
    return [(said, "\n".join(answer)) for said, answer in found]


async def test_from_prosody_to_a_queue_in_a_chat_window(tmp_path: Path) -> None:
    component = "\n".join(block("lua"))
    with chatting.prosody(DEBIAN + component, accounts=()) as prosody:
        [register] = [
            line.removeprefix("$ sudo ")
            for one in documents.blocks(GUIDE)
            for line in one.lines
            if "prosodyctl register" in line
        ]
        command = register.replace("prosodyctl", f"prosodyctl --root --config {prosody.config}").split()
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0
        settings = tmp_path / "presque.yaml"
        settings.write_text("\n".join([*block("yaml"), f"  server: {prosody.address}\n"]))
        with rig.server("--memory", "--config", str(settings)) as server:
            rig.eventually(lambda: any("xmpp.connected" in line for line in server.everything))
            async with chatting.friend(prosody) as ana:
                for said, answer in turns():
                    heard = await ana.chat("mail@presque.localhost", said)
                    assert fits(heard, answer), (said, heard)
            assert server.ask("GET", "/q/mail").body == b'{"to": "ben"}'


def test_the_names_of_the_guide_are_those_of_its_settings() -> None:
    text = GUIDE.read_text("utf-8")
    assert re.search(r'component_secret = "between-us"', text)
    assert "prosodyctl register ana localhost " + chatting.PASSWORD in text
    assert os.sep.join(("conf.d", "presque.cfg.lua")) in text
