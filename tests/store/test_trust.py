"""A store behind TLS with an authority of one's own, which asks presque for a certificate."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import rig


@dataclass
class Setting:
    """A store that speaks TLS and asks for certificates; what is needed to reach it."""

    port: int
    ca: Path
    client: Path
    directory: Path
    store: rig.Store

    @property
    def url(self) -> str:
        return f"rediss://127.0.0.1:{self.port}"

    def variables(self, **changed: str | None) -> dict[str, str]:
        """What presque is told, but for what is `changed`; None leaves one out."""
        told = {"ca": str(self.ca), "cert": f"{self.client}.cert", "key": f"{self.client}.key"} | changed
        variables = {
            f"PRESQUE_REDIS__{name.upper()}": value for name, value in told.items() if value is not None
        }
        return {"PRESQUE_REDIS": self.url, **variables}


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    """The store's certificate is for `store.internal` alone, not for the address that it is reached by."""
    directory = tmp_path_factory.mktemp("tls")
    ca = rig.certificate(directory, "authority")
    own = rig.certificate(directory, "own", "DNS:store.internal", by=ca)
    client = rig.certificate(directory, "client", by=ca)
    port = rig.free_port()
    files = [
        "--tls-ca-cert-file",
        f"{ca}.cert",
        "--tls-cert-file",
        f"{own}.cert",
        "--tls-key-file",
        f"{own}.key",
    ]
    with rig.store("redis-7.0", "--tls-port", str(port), *files) as store:
        yield Setting(port, Path(f"{ca}.cert"), client, directory, store)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_private_authority_and_a_certificate_of_its_own_open_the_store(
    setting: Setting, workers: str, queue_name: str
) -> None:
    told = setting.variables(server_name="store.internal")
    with rig.server("--workers", workers, **told) as server:
        assert server.ask("POST", f"/q/{queue_name}", "1").status == 201
        assert server.ask("GET", f"/q/{queue_name}?wait=5").body == b"1"


def test_a_file_of_settings_says_the_same(setting: Setting, tmp_path: Path, queue_name: str) -> None:
    file = tmp_path / "presque.yaml"
    file.write_text(
        f"redis:\n  url: {setting.url}\n  server_name: store.internal\n"
        f"  ca: {setting.ca}\n  cert: {setting.client}\n"
    )
    with rig.server("--config", str(file)) as server:
        assert server.ask("POST", f"/q/{queue_name}", "1").status == 201
    seen = subprocess.run(
        [sys.executable, "-m", "presque", "doctor", "--config", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"Redis 7.0.15 at {setting.url}/0" in seen.stdout, seen.stdout


def test_a_connection_that_was_lost_comes_back_over_tls(setting: Setting, queue_name: str) -> None:
    with rig.server(**setting.variables(server_name="store.internal")) as server:
        server.ask("POST", f"/q/{queue_name}", "1")
        with setting.store.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        rig.eventually(lambda: "store.lost" in server.said())
        answer = rig.eventually(lambda: server.ask("GET", f"/q/{queue_name}?wait=5").body == b"1")
        assert answer


def refusal(variables: dict[str, str], *flags: str) -> str:
    """What `presque serve` says when it does not start."""
    done = subprocess.run(
        [sys.executable, "-m", "presque", "serve", "--port", "0", *flags],
        capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **variables},
    )  # fmt: skip
    assert done.returncode in (1, 2), done
    return done.stderr


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ca": None}, "its certificate is not valid here"),
        ({"server_name": None}, "its certificate is not valid here (IP address mismatch"),
        ({"server_name": "other.internal"}, "its certificate is not valid here (Hostname mismatch"),
        ({"cert": None, "key": None}, "it wants a certificate from presque: see `redis.cert`"),
        ({"cert": None}, "`redis.cert` is not: there is no certificate that the key belongs to"),
        ({"ca": "/nowhere"}, "`redis.ca` cannot be read: /nowhere: No such file or directory"),
        ({"key": "/nowhere"}, "`redis.key` cannot be read: /nowhere: No such file or directory"),
        ({"ca": "{d}/client.pem.key"}, "`redis.ca` should hold certificates (PEM), and"),
        ({"key": "{d}/own.pem.key"}, "is not that of the certificate in"),
        ({"key": "{d}/locked.key"}, "is locked with a password"),
        ({"key": "{d}/client.pem.cert"}, "`redis.cert` should hold a certificate and `redis.key` its key"),
        ({"cert": "{d}/stranger.pem", "key": None}, "it does not accept presque's certificate"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(setting: Setting, changed: dict[str, str | None], said: str) -> None:
    directory = setting.directory
    if not (directory / "locked.key").exists():
        rig.certificate(directory, "stranger")
        subprocess.run(
            [rig.require("openssl"), "ec", "-aes256", "-passout", "pass:secret",
             "-in", f"{setting.client}.key", "-out", str(directory / "locked.key")],
            check=True, capture_output=True,
        )  # fmt: skip
    told = {name: value and value.format(d=directory) for name, value in changed.items()}
    assert said in refusal(setting.variables(**{"server_name": "store.internal", **told}))


def test_files_of_tls_without_tls_are_refused(setting: Setting) -> None:
    told = setting.variables() | {"PRESQUE_REDIS": "redis://127.0.0.1:1"}
    assert "`redis.tls` is not: they are for a store that speaks TLS" in refusal(told)


def test_the_files_of_tls_hold_for_a_store_that_a_flag_names(setting: Setting) -> None:
    """Nothing secret of them is sent to it. One that speaks no TLS needs none of them."""
    assert "(IP address mismatch" in refusal(setting.variables(), "--redis", setting.url)
    assert "no store at redis://127.0.0.1:1/0" in refusal(
        setting.variables(), "--redis", "redis://127.0.0.1:1"
    )
