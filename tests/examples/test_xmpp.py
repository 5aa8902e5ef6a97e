"""The workers and producers in examples/xmpp/, each in its language, through a real XMPP server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from presque import Client
from tests import chatting, rig

EXAMPLES = Path(__file__).parents[2] / "examples" / "xmpp"
COMMANDS = {"py": [sys.executable], "rb": ["ruby"]}
LINES_MOST = 60
NAMES = ("ana", 'zoë "z" <&> $HOME')

# The server of these tests has no certificate, and slixmpp wants encryption unless it is told otherwise.
UNENCRYPTED = """
import slixmpp.features.feature_mechanisms.mechanisms as mechanisms
mechanisms.FeatureMechanisms.default_config |= {"unencrypted_plain": True, "unencrypted_scram": True}
import slixmpp
class Plain(slixmpp.ClientXMPP):
    def __init__(self, *args):
        super().__init__(*args)
        self.enable_plaintext, self.enable_starttls, self.enable_direct_tls = True, False, False
slixmpp.ClientXMPP = Plain
"""

every_language = pytest.mark.parametrize("language", COMMANDS)


@pytest.fixture(scope="module")
def there() -> Iterator[tuple[chatting.Prosody, rig.Server]]:
    with chatting.prosody() as prosody, rig.server("--memory", **chatting.settings(prosody)) as server:
        rig.eventually(lambda: any("xmpp.connected" in line for line in server.everything))
        yield prosody, server


def environment(prosody: chatting.Prosody, tmp_path: Path) -> dict[str, str]:
    (tmp_path / "sitecustomize.py").write_text(UNENCRYPTED)
    return {
        **os.environ,
        "PYTHONPATH": str(tmp_path),
        "LC_ALL": "C.UTF-8",
        "XMPP_JID": "ana@localhost/example",
        "XMPP_PASSWORD": chatting.PASSWORD,
        "XMPP_SERVER": f"127.0.0.1:{prosody.c2s}",
        "XMPP_DOMAIN": chatting.DOMAIN,
    }


def command(kind: str, language: str) -> list[str]:
    """How to run an example. Without its language the test is skipped on a laptop and fails in CI."""
    if language == "rb":
        rig.require("ruby")
        if subprocess.run(["ruby", "-e", "require 'xmpp4r'"], capture_output=True, check=False).returncode:
            rig.require("ruby-xmpp4r, the library,")
    return [*COMMANDS[language], str(EXAMPLES / f"{kind}.{language}")]


@every_language
def test_a_producer_pushes_and_a_worker_works(
    there: tuple[chatting.Prosody, rig.Server], queue_name: str, tmp_path: Path, language: str
) -> None:
    prosody, server = there
    known = environment(prosody, tmp_path)
    producer = [*command("producer", language), queue_name, *NAMES]
    done = subprocess.run(producer, env=known, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "1\n2\n"), done.stderr
    said = tmp_path / "said"
    with Client(server.url) as client, said.open("wb") as output:
        assert [json.loads(text) for text in client.peek(queue_name)] == [{"name": name} for name in NAMES]
        client.change_policy(queue_name, max_attempts=1)
        client.push(queue_name, {"who": "nobody"})
        worker = subprocess.Popen(
            [*command("worker", language), queue_name], env=known, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        try:
            rig.eventually(lambda: client.stats(queue_name)["dead"] == 1, 40, say=said.read_text)
            rig.eventually(lambda: client.stats(queue_name)["processed"] == len(NAMES))
            job = client.job(queue_name, "3")
        finally:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
    hellos = [line for line in said.read_text().splitlines() if line.startswith("hello")]
    assert hellos == [f"hello, {name}" for name in NAMES]
    assert "a greeting needs a name" in job["errors"][0]["error"]


@pytest.mark.parametrize("path", sorted(EXAMPLES.iterdir()), ids=lambda path: path.name)
def test_an_example_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < LINES_MOST
