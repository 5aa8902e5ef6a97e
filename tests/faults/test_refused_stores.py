"""Stores that would lose jobs or cannot do what presque needs are refused with a sentence."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import rig


def refusal(url: str) -> str:
    """What `presque serve` says before it ends, when it refuses this store."""
    ended = subprocess.run(
        [sys.executable, "-m", "presque", "serve", "--port", "0", "--redis", url],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 1, ended
    assert "Traceback" not in ended.stderr
    assert "answers at" not in ended.stdout
    return ended.stderr


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_store_that_throws_keys_away_is_refused(policy: str) -> None:
    with rig.store("valkey", "--maxmemory-policy", policy) as store:
        said = refusal(store.url)

    assert f"has maxmemory-policy {policy}, which throws jobs away" in said
    assert "set it to noeviction" in said


def test_a_replica_is_refused() -> None:
    with rig.store("valkey", "--replicaof", "127.0.0.1 1") as store:
        assert "it is a replica; name its primary" in refusal(store.url)


def test_a_wrong_password_is_refused_and_not_shown() -> None:
    with rig.store("valkey") as store:
        with store.client() as client:
            client.config_set("requirepass", "right")

        for url in (store.url, store.url.replace("unix://", "unix://:wrong-secret@")):
            said = refusal(url)
            assert "rejected the login: check user and password" in said
            assert "wrong-secret" not in said


def test_a_user_that_may_do_too_little_is_refused() -> None:
    with rig.store("valkey") as store:
        with store.client() as client:
            client.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-function")

        assert "does not accept presque's functions" in refusal(
            store.url.replace("unix://", "unix://app:pw@")
        )


def test_a_user_that_may_not_listen_is_refused() -> None:
    with rig.store("valkey") as store:
        with store.client() as client:
            client.execute_command("ACL", "SETUSER", "app", "on", ">pw", "~*", "resetchannels", "+@all")

        said = refusal(store.url.replace("unix://", "unix://app:pw@"))

    assert "may not listen" in said
    assert "&presque:*" in said


@pytest.mark.parametrize("version", ["6.2.0", "5.0.14"])
def test_a_redis_without_functions_is_refused(version: str) -> None:
    with pretending(as_redis(version)) as port:
        assert "presque needs Redis 7.0 or later, or Valkey" in refusal(f"redis://127.0.0.1:{port}")


def test_something_that_is_no_store_is_refused() -> None:
    with pretending({b"HELLO": b"HTTP/1.1 400 Bad Request\r\n\r\n"}) as port:
        assert "it does not speak RESP" in refusal(f"redis://127.0.0.1:{port}")


def test_a_store_that_keeps_nothing_is_used_and_warned_about(store: rig.Store) -> None:
    with rig.server("--redis", store.url, "--namespace", "unkept") as server:
        rig.eventually(lambda: "store.not_persistent" in server.said())
        stats = server.ask("GET", "/stats/").json

    assert stats["durability"].startswith("The store keeps no log of its writes: jobs are lost when it stops")


def test_presque_in_memory_warns_about_nothing() -> None:
    with rig.server("--memory") as server:
        assert server.ask("GET", "/stats/").status == 200
        assert "store.not_persistent" not in server.said()


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A store that speaks TLS: its port, and the certificate that it shows."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        [
            rig.require("openssl"), "req", "-x509", "-newkey", "ec",
            "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "1", "-subj", "/CN=store", "-addext", "subjectAltName=IP:127.0.0.1",
            "-keyout", key, "-out", certificate,
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    port = rig.free_port()
    files = ["--tls-key-file", str(key), "--tls-cert-file", str(certificate), "--tls-auth-clients", "no"]
    with rig.store("redis-7.0", "--tls-port", str(port), *files):
        yield port, certificate


def test_a_store_is_reached_through_tls(tls: tuple[int, Path]) -> None:
    port, certificate = tls
    with rig.server("--redis", f"rediss://127.0.0.1:{port}", SSL_CERT_FILE=str(certificate)) as server:
        assert server.ask("POST", "/q/mail", "1").status == 201
        assert server.ask("GET", "/q/mail").body == b"1"


def test_a_certificate_that_nobody_vouches_for_is_refused(tls: tuple[int, Path]) -> None:
    said = refusal(f"rediss://127.0.0.1:{tls[0]}")
    assert f"no store at rediss://127.0.0.1:{tls[0]}/0: its certificate is not valid here (self" in said


def test_a_store_that_speaks_no_tls_is_told_from_one_that_is_away() -> None:
    port = rig.free_port()
    with rig.store("redis-7.0", "--port", str(port)):
        assert "it does not answer in TLS" in refusal(f"rediss://127.0.0.1:{port}")


def test_a_server_that_answers_tls_with_something_else_is_named() -> None:
    with rig.server("--memory") as server:
        assert "it does not speak TLS as presque does" in refusal(f"rediss://127.0.0.1:{server.port}")


def as_redis(version: str) -> dict[bytes, bytes]:
    """What a Redis of this version answers, as far as it is asked."""
    info = f"redis_version:{version}\r\nmaxmemory_policy:noeviction\r\nrole:master\r\n"
    return {
        b"HELLO": b"+OK\r\n" if version >= "6" else b"-ERR unknown command `HELLO`, with args\r\n",
        b"INFO": f"${len(info)}\r\n{info}\r\n".encode(),
        b"CONFIG": b"*2\r\n$11\r\nappendfsync\r\n$8\r\neverysec\r\n",
        b"CLIENT": b"+OK\r\n",
    }


@contextlib.contextmanager
def pretending(answers: dict[bytes, bytes]) -> Iterator[int]:
    """A port where these answers are given. Such stores are not to be had any more, so these are the only
    ones that tests pretend to have."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            while data := connection.recv(65536):
                name = data.split(b"\r\n")[2].upper()
                connection.sendall(answers.get(name, b"-ERR unknown command\r\n"))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(rig.PATIENCE)


@pytest.mark.parametrize(("limit", "warned"), [("normal 1mb 0 0", True), ("normal 0 0 0", False)])
def test_a_store_that_cuts_clients_with_large_answers_is_warned_about(limit: str, *, warned: bool) -> None:
    with (
        rig.store("valkey", "--client-output-buffer-limit", *limit.split()) as store,
        rig.server("--redis", store.url) as server,
    ):
        assert server.ask("GET", "/stats/").status == 200
        rig.eventually(lambda: "store.not_persistent" in server.said())
        assert ("store.answers_limited" in server.said()) is warned
