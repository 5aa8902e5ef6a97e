"""TLS by presque itself: what holds without it holds with it, certificates are read again, clients need one.

That whoever leaves takes nothing is in test_leaving.py, with and without TLS.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from websockets.sync.client import connect as sync_connect

from presque import AsyncClient, Client
from presque.cli.remedies import remedy
from presque.client import ServerNotReached
from tests import rig
from tests.clients import Connect
from tests.doors.test_raw_requests import (  # noqa: F401  (they run here once more, over TLS)
    Wire,
    get,
    post,
    test_a_body_of_one_mebibyte_is_taken,
    test_a_thousand_pipelined_pushes_and_fetches,
    test_pipelined_requests_of_both_lanes_are_answered_in_order,
    test_requests_cut_anywhere_are_the_same_requests,
    test_what_cannot_be_read_is_refused_and_what_follows_is_never_a_request,
    test_what_is_pipelined_behind_a_waiting_fetch_waits_too,
    wire,
)
from tests.doors.tokens import first_token, id_of


@pytest.fixture(scope="module")
def server(pem: Path) -> Iterator[rig.Server]:
    """One that speaks TLS, in place of the one that all tests share."""
    with rig.tls_server(pem, "--memory") as found:
        yield found


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Signs the certificates of clients."""
    return rig.certificate(tmp_path_factory.mktemp("authority"), "authority")


def shown_by(server: rig.Server) -> bytes:
    """The certificate that a new connection is greeted with."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", server.port), rig.PATIENCE) as plain,
        context.wrap_socket(plain) as one,
    ):
        return one.getpeercert(binary_form=True) or b""


def of_file(pem: Path) -> bytes:
    found = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", pem.read_text(), re.DOTALL)
    assert found is not None
    return ssl.PEM_cert_to_DER_cert(found[0])


def test_the_first_screen_names_the_certificate_and_an_address_with_https(server: rig.Server) -> None:
    assert server.url.startswith("https://127.0.0.1:")
    assert rig.eventually(lambda: [line for line in server.said().splitlines() if line.startswith("TLS: ")])
    [said] = [line for line in server.log if line.startswith("TLS: ")]
    assert re.fullmatch(
        r"TLS: a certificate for localhost, 127\.0\.0\.1, valid until \d{4}-\d\d-\d\d\.", said
    )


def test_several_processes_speak_tls(pem: Path, queue_name: str) -> None:
    with rig.tls_server(pem, "--memory", "--workers", "2") as found:
        for number in range(20):
            assert found.ask("POST", f"/q/{queue_name}", str(number)).status == 201
        assert [found.ask("GET", f"/q/{queue_name}").body for _ in range(20)] == [
            b"%d" % n for n in range(20)
        ]


def test_both_clients_speak_tls(
    server: rig.Server, pem: Path, connect: Connect, monkeypatch: pytest.MonkeyPatch, queue_name: str
) -> None:
    monkeypatch.setenv("PRESQUE_CA", str(pem))
    client = connect(server.url, timeout=20)
    large = "x" * 900_000
    assert [client.push(queue_name, one) for one in (1, large)] == ["1", "2"]
    assert client.fetch(queue_name).value == 1
    [job] = client.lease(queue_name)
    assert job.value == large
    client.ack(job)


async def test_jobs_are_consumed_over_tls(
    server: rig.Server, pem: Path, monkeypatch: pytest.MonkeyPatch, queue_name: str
) -> None:
    monkeypatch.setenv("PRESQUE_CA", str(pem))
    async with AsyncClient(server.url, timeout=20) as client, client.consume(queue_name, credit=5) as jobs:
        for number in range(50):
            await client.push(queue_name, number)
        for number in range(50):
            job = await anext(jobs)
            assert job.value == number
            job.ack()


def test_lines_go_up_and_jobs_come_down_as_they_come(server: rig.Server, queue_name: str) -> None:
    count = 20_000
    lines = b"".join(b'{"number":%d,"text":"%b"}\n' % (n, b"x" * 50) for n in range(count))
    answer = server.ask("POST", f"/qb/{queue_name}", lines, Content_Type="application/x-ndjson")
    assert answer.json["pushed"] == count
    with contextlib.closing(server.connect()) as connection:
        connection.sendall(get(f"/c/{queue_name}"))
        received, rest = 0, b""
        while received < count:
            *lines_in, rest = (rest + connection.recv(65536)).split(b'"number":')
            received += len(lines_in)


def test_a_client_that_does_not_read_is_not_given_every_job(pem: Path) -> None:
    body = b'"%b"' % (b"x" * (1 << 19))
    with rig.tls_server(pem, "--memory") as server:
        for _ in range(50):
            assert server.ask("POST", "/q/large", body).status == 201
        with wire(server) as connection:
            connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            connection.send(get("/q/large") * 50)
            rig.eventually(lambda: server.ask("GET", "/j/large").json["job_processed"] > 0)
            for _ in range(20):
                server.ask("GET", "/status/")
            assert server.ask("GET", "/j/large").json["job_processed"] < 40
            for _ in range(50):
                assert connection.reply().body == body


def test_who_speaks_no_tls_is_told_to(server: rig.Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), rig.PATIENCE) as plain:
        plain.sendall(b"GET /q/mail HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""
        while part := plain.recv(65536):
            received += part
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert f"content-length: {len(body)}".encode() in head.lower()
    assert json.loads(body) == {"error": "this server speaks TLS: use https://"}


@pytest.mark.parametrize(
    "sent", [b"\x16\x03\x01", bytes(70_000), b"\xff" * 500, b"\x16\x03\x01\x00\x05\x01\x00\x00"]
)
def test_what_is_no_handshake_ends_that_connection_alone(server: rig.Server, sent: bytes) -> None:
    plain = socket.create_connection(("127.0.0.1", server.port), rig.PATIENCE)
    with plain, contextlib.suppress(ConnectionError):
        plain.sendall(sent)
        plain.shutdown(socket.SHUT_WR)
        while plain.recv(65536):
            pass
    assert server.ask("GET", "/status/").status == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_recent_versions_are_spoken(server: rig.Server, pem: Path, version: ssl.TLSVersion) -> None:
    context = ssl.create_default_context(cafile=str(pem))
    context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", server.port), rig.PATIENCE) as plain:
        one = rig.Encrypted(plain, context)
        one.sendall(get("/status/"))
        assert one.recv(65536).startswith(b"HTTP/1.1 200 ")
        one.goodbye()
        assert one.recv(65536) == b""


def test_a_version_that_is_broken_is_refused(server: rig.Server) -> None:
    done = subprocess.run(
        [rig.require("openssl"), "s_client", "-connect", f"127.0.0.1:{server.port}", "-tls1_1",
         "-cipher", "ALL:@SECLEVEL=0"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "alert protocol version" in done.stderr


# --- certificates that change


def test_a_certificate_that_was_renewed_is_shown_without_dropping_a_connection(tmp_path: Path) -> None:
    first = rig.certificate(tmp_path, "first", "DNS:localhost", "IP:127.0.0.1")
    second = rig.certificate(tmp_path, "second", "DNS:localhost", "IP:127.0.0.1")
    here = tmp_path / "cert.pem"
    shutil.copy(first, here)
    with rig.tls_server(here, "--memory", "--workers", "2") as server, wire(server) as stands:
        stands.send(get("/q/mail?wait=20"))
        assert shown_by(server) == of_file(first)

        shutil.copy(second, tmp_path / "new")
        (tmp_path / "new").replace(here)

        rig.eventually(lambda: all(shown_by(server) == of_file(second) for _ in range(8)))
        server.context = ssl.create_default_context(cafile=str(second))
        assert server.ask("POST", "/q/mail", "1").status == 201
        assert stands.reply().body == b"1"
        stands.send(get("/status/"))
        assert stands.reply().status == 200


@pytest.mark.parametrize("broken", ["", "no certificate", "the key of another", "half", "gone"])
def test_a_broken_certificate_is_logged_and_the_old_one_goes_on(tmp_path: Path, broken: str) -> None:
    first = rig.certificate(tmp_path, "first", "DNS:localhost", "IP:127.0.0.1")
    second = rig.certificate(tmp_path, "second", "DNS:localhost", "IP:127.0.0.1")
    cert, key = tmp_path / "cert", tmp_path / "key"
    shutil.copy(f"{first}.cert", cert)
    shutil.copy(f"{first}.key", key)
    with rig.tls_server(first, "--memory", "--tls-cert", str(cert), "--tls-key", str(key)) as server:
        assert shown_by(server) == of_file(first)
        if broken == "gone":
            cert.unlink()
        elif broken == "the key of another":
            shutil.copy(f"{second}.key", key)
        elif broken == "half":
            cert.write_text(first.read_text()[:300])
        else:
            cert.write_text(broken)

        rig.eventually(lambda: "tls.not_read" in server.said())
        assert shown_by(server) == of_file(first)
        assert server.ask("GET", "/status/").status == 200

        shutil.copy(f"{second}.key", key)
        shutil.copy(f"{second}.cert", cert)
        rig.eventually(lambda: shown_by(server) == of_file(second))


def test_a_certificate_that_has_expired_is_shown_and_said(tmp_path: Path) -> None:
    pem = rig.certificate(tmp_path, "localhost", "DNS:localhost", "IP:127.0.0.1", expired=True)
    with rig.tls_server(pem, "--memory") as server:
        assert shown_by(server) == of_file(pem)
        assert rig.eventually(lambda: "IS NOT VALID NOW" in server.said())
        assert rig.eventually(lambda: "tls.not_valid" in server.said())


@pytest.mark.parametrize(
    ("cert", "key", "sentence"),
    [
        ("gone", None, "`tls.cert` cannot be read: {d}/gone: No such file or directory"),
        ("a.pem", "gone", "`tls.key` cannot be read: {d}/gone: No such file or directory"),
        ("a.pem.cert", None, "{d}/a.pem.cert holds no key (PEM); name the file that does in `tls.key`"),
        ("a.pem.key", None, "{d}/a.pem.key holds no certificate (PEM)"),
        ("a.pem", "b.pem", "the key in {d}/b.pem does not belong to the certificate in {d}/a.pem"),
        ("a.pem", "locked", "the key in {d}/locked has a passphrase, which presque cannot ask for"),
        ("empty", None, "{d}/empty holds no certificate (PEM)"),
        ("rubbish", None, "the certificate in {d}/rubbish and the key in {d}/rubbish cannot be used: "),
    ],
)
def test_a_certificate_that_cannot_be_used_is_said_at_the_start(
    tmp_path: Path, cert: str, key: str | None, sentence: str
) -> None:
    for name in "a", "b":
        rig.certificate(tmp_path, name, "DNS:localhost")
    (tmp_path / "empty").write_text("")
    (tmp_path / "rubbish").write_text(
        "".join(
            f"-----BEGIN {what}-----\nQUJD\n-----END {what}-----\n" for what in ("CERTIFICATE", "PRIVATE KEY")
        )
    )
    lock = [rig.require("openssl"), "ec", "-aes256", "-passout", "pass:secret"]
    lock += ["-in", str(tmp_path / "a.pem.key"), "-out", str(tmp_path / "locked")]
    subprocess.run(lock, check=True, capture_output=True)
    flags = ["--tls-cert", str(tmp_path / cert)] + ([] if key is None else ["--tls-key", str(tmp_path / key)])
    done = subprocess.run(
        [sys.executable, "-m", "presque", "serve", "--memory", "--port", "0", *flags],
        capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode != 0
    assert sentence.format(d=tmp_path) in done.stderr
    assert "Traceback" not in done.stderr


# --- certificates of clients


@pytest.fixture(scope="module")
def strict(pem: Path, authority: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[rig.Server]:
    """A server that asks each client for a certificate of the authority."""
    with rig.tls_server(pem, "--memory", PRESQUE_TLS__CLIENT_CA=str(authority)) as found:
        yield found


def answer_to(server: rig.Server, pem: Path, certificate: Path | None) -> str:
    """What a client with this certificate gets: `200`, or why nothing."""
    context = ssl.create_default_context(cafile=str(pem))
    if certificate is not None:
        context.load_cert_chain(certificate)
    try:
        with (
            socket.create_connection(("127.0.0.1", server.port), rig.PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as one,
        ):
            one.sendall(get("/status/"))
            return one.recv(65536)[9:12].decode()
    except ssl.SSLError as error:
        return str(error.reason)
    except ConnectionError:
        return "cut"


def test_a_client_without_a_certificate_of_the_authority_is_not_served(
    strict: rig.Server, pem: Path, authority: Path, tmp_path: Path
) -> None:
    assert answer_to(strict, pem, None) in ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "cut")
    stranger = rig.certificate(tmp_path, "stranger")
    assert answer_to(strict, pem, stranger) in ("TLSV1_ALERT_UNKNOWN_CA", "cut")
    expired = rig.certificate(tmp_path, "expired", by=authority, expired=True)
    assert answer_to(strict, pem, expired) in ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "cut")
    known = rig.certificate(tmp_path, "known", by=authority)
    assert answer_to(strict, pem, known) == "200"


def test_both_clients_show_a_certificate(
    strict: rig.Server,
    pem: Path,
    authority: Path,
    tmp_path: Path,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    queue_name: str,
) -> None:
    monkeypatch.setenv("PRESQUE_CA", str(pem))
    with pytest.raises(ServerNotReached) as raised:
        connect(strict.url, timeout=20).push(queue_name, 0)
    assert "PRESQUE_CERT" in remedy(raised.value) or "CERTIFICATE_REQUIRED" not in str(raised.value)
    mine = rig.certificate(tmp_path, "mine", by=authority)
    monkeypatch.setenv("PRESQUE_CERT", f"{mine}.cert")
    monkeypatch.setenv("PRESQUE_KEY", f"{mine}.key")
    assert connect(strict.url, timeout=20).push(queue_name, 1) == "1"


def test_a_file_that_a_client_cannot_use_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PRESQUE_CA", str(tmp_path / "gone"))
    with pytest.raises(ValueError, match=r"^PRESQUE_CA: .*gone holds no certificates that can be read: "):
        Client("https://localhost:1")
    monkeypatch.delenv("PRESQUE_CA")
    monkeypatch.setenv("PRESQUE_CERT", str(tmp_path / "gone"))
    with pytest.raises(ValueError, match=r"^PRESQUE_CERT: .*gone cannot be used with its key: No such file"):
        Client("https://localhost:1")


# --- certificates that stand for tokens


class Named(NamedTuple):
    """A server on which two certificates stand for tokens, an admin's token, and who signs certificates."""

    server: rig.Server
    admin: str
    mailer: str
    directory: Path
    authority: Path
    pem: Path

    def certificate(self, name: str, *more: str) -> ssl.SSLContext:
        """How a client speaks TLS that has a certificate with these names."""
        context = ssl.create_default_context(cafile=str(self.pem))
        context.load_cert_chain(rig.certificate(self.directory, name, *more, by=self.authority))
        return context

    def ask(self, context: ssl.SSLContext, *request: str, **headers: str) -> rig.Answer:
        """The answer to a client with this certificate."""
        self.server.context = context
        return self.server.ask(*request, **headers)  # type: ignore[arg-type]


@pytest.fixture
def named(pem: Path, authority: Path, tmp_path: Path) -> Iterator[Named]:
    data = str(tmp_path / "presque")
    admin = first_token("--data", data)
    words = ["-m", "presque", "token", "new", "mailer", "--allow", "push:mail", "--data", data]
    mailer = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, check=True
    ).stdout.strip()
    clients = {"CN=mailer": id_of(mailer), "DNS=boss.example": id_of(admin), "CN=stale": "0123456789"}
    environment = {"PRESQUE_TLS__CLIENT_CA": str(authority), "PRESQUE_TLS__CLIENTS": json.dumps(clients)}
    flags = ("--data", data, "--workers", "2")
    with rig.server("--tls-cert", str(pem), *flags, **environment) as found:
        yield Named(found, admin, mailer, tmp_path, authority, pem)


def test_a_certificate_may_do_what_the_token_allows_that_it_stands_for(named: Named) -> None:
    mailer, boss = named.certificate("mailer"), named.certificate("other", "DNS:boss.example")
    assert named.ask(mailer, "POST", "/q/mail", "1").status == 201
    assert named.ask(mailer, "GET", "/q/mail").status == 403
    assert named.ask(mailer, "POST", "/q/other", "1").status == 403
    assert named.ask(boss, "GET", "/q/mail").body == b"1"
    # A token of its own is what counts.
    headers = {"Authorization": f"Bearer {named.admin}"}
    assert named.ask(mailer, "POST", "/q/other", "1", **headers).status == 201
    assert named.ask(mailer, "POST", "/q/other", "1", Authorization="Bearer prq_nonsense").status == 401


@pytest.mark.parametrize("name", ["nobody", "CN=mailer", "mailer.example", "Mailer", "stale"])
def test_any_other_certificate_needs_a_token(named: Named, name: str) -> None:
    context = named.certificate(name, "DNS:mailer", "URI:CN=mailer")
    answer = named.ask(context, "POST", "/q/mail", "1")
    assert (answer.status, named.ask(context, "GET", "/stats/").status) == (401, 401)
    headers = {"Authorization": f"Bearer {named.mailer}"}
    assert named.ask(context, "POST", "/q/mail", "1", **headers).status == 201


def test_clients_with_other_certificates_do_not_share_what_was_understood(named: Named) -> None:
    with contextlib.ExitStack() as stack:
        found = []
        for context in (named.certificate("mailer"), named.certificate("nobody")):
            named.server.context = context
            found += [stack.enter_context(wire(named.server)) for _ in range(3)]
        for _ in range(3):
            for number, connection in enumerate(found):
                connection.send(post("mail", b"1"))
                assert connection.reply().status == (201 if number < 3 else 401)


def test_a_certificate_is_worth_nothing_when_the_token_is_revoked(named: Named) -> None:
    mailer, boss = named.certificate("mailer"), named.certificate("other", "DNS:boss.example")
    named.server.context = mailer
    with contextlib.ExitStack() as stack:
        stands = [stack.enter_context(wire(named.server)) for _ in range(4)]
        for connection in stands:
            connection.send(post("mail", b"1"))
            assert connection.reply().status == 201
        assert named.ask(boss, "DELETE", f"/tokens/{id_of(named.mailer)}").status == 204

        def refused(connection: Wire) -> bool:
            connection.send(post("mail", b"1"))
            return connection.reply().status == 401

        for connection in stands:
            rig.eventually(lambda: refused(connection))  # noqa: B023 (it is called here)


def test_a_socket_of_a_certificate_needs_no_token(named: Named) -> None:
    address = f"wss://localhost:{named.server.port}/ws"
    with sync_connect(address, ssl=named.certificate("mailer")) as socket_of_mailer:
        socket_of_mailer.send('{"cmd":"push","queue":"mail","job":1}')
        assert json.loads(socket_of_mailer.recv(rig.PATIENCE))["id"]
        socket_of_mailer.send('{"cmd":"fetch","queue":"mail"}')
        assert json.loads(socket_of_mailer.recv(rig.PATIENCE))["error"]


# --- slow ones


def test_a_handshake_that_does_not_end_is_cut_off(pem: Path) -> None:
    with (
        rig.tls_server(pem, "--memory", PRESQUE_LIMITS__HEAD="4s") as server,
        socket.create_connection(("127.0.0.1", server.port), rig.PATIENCE) as silent,
    ):
        silent.sendall(b"\x16\x03\x01\x02\x00\x01")
        assert silent.recv(1) == b""
