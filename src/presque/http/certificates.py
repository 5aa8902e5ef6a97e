"""The certificate and key that this server shows, read again when their files change.

A certificate is renewed by replacing its files, without notice. So the files are checked once a second. New
connections get the certificate in the files; existing ones continue unchanged. Files that cannot be used, as
one of two that do not belong together yet, change nothing: the log says what is wrong with them, and they are
looked at again when they change again.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
import stat
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from presque.config.settings import TlsSettings
from presque.errors import SetupError

log = logging.getLogger("presque.http")

_Seen = tuple[tuple[int, int, int] | None, ...]


class Facts(msgspec.Struct, frozen=True):
    """What a certificate says: the names that it is for, and until when it is valid. `until` is None, and no
    name is known, if it is not valid now."""

    names: tuple[str, ...]
    until: datetime | None


class Certificates:
    """What connections are greeted with. `context` is always usable, and never changed: it is replaced."""

    def __init__(self, settings: TlsSettings) -> None:
        """Read the files. Raises `SetupError`, with a sentence, for what cannot be used."""
        self._settings = settings
        self._seen = _look(settings)
        self.context = context_of(settings)
        self._tell(facts_of(settings))

    def look(self) -> None:
        """Read the files again if one of them has changed."""
        seen = _look(self._settings)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            context, facts = context_of(self._settings), facts_of(self._settings)
        except SetupError as error:
            log.error("tls.not_read reason=%r", str(error))
            return
        self.context = context
        self._tell(facts)

    def _tell(self, facts: Facts) -> None:
        cert = str(self._settings.cert)
        if facts.until is None:
            log.warning("tls.not_valid cert=%s", cert)
        else:
            log.info("tls.read cert=%s until=%s", cert, facts.until.isoformat())


def context_of(settings: TlsSettings) -> ssl.SSLContext:
    """TLS 1.2 or later with this certificate. Raises `SetupError`."""
    cert, key = settings.cert, settings.key or settings.cert
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    for name, path in ("tls.cert", cert), ("tls.key", key):
        with _readable(name, path):
            path.read_bytes()
    try:
        context.load_cert_chain(cert, key, password=_no_passphrase)
    except ssl.SSLError as error:
        raise SetupError(_wrong_with(error, cert, key)) from None
    except _Passphrase:
        raise SetupError(f"the key in {key} has a passphrase, which presque cannot ask for") from None
    if settings.client_ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        with _readable("tls.client_ca", settings.client_ca):
            try:
                context.load_verify_locations(settings.client_ca)
            except ssl.SSLError:
                raise SetupError(f"{settings.client_ca} holds no certificate of an authority (PEM)") from None
    return context


def facts_of(settings: TlsSettings) -> Facts:
    """What the certificate says. Raises `SetupError`."""
    server = context_of(TlsSettings(cert=settings.cert, key=settings.key))
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(settings.cert)  # it vouches for itself: only its dates are of interest
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    asks, answers = client.wrap_bio(back, there), server.wrap_bio(there, back, server_side=True)
    for side in asks, answers, asks:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError:
            return Facts((), None)
    found: Any = asks.getpeercert()
    until = datetime.fromtimestamp(ssl.cert_time_to_seconds(found["notAfter"]), UTC)
    names = (value for kind, value in found.get("subjectAltName", ()) if kind in ("DNS", "IP Address"))
    return Facts(tuple(names), until)


def described(settings: TlsSettings) -> str:
    """A sentence about the certificate, for people. Raises `SetupError`."""
    facts = facts_of(settings)
    if facts.until is None:
        return f"THE CERTIFICATE IN {settings.cert} IS NOT VALID NOW: clients will refuse it."
    asked = "" if settings.client_ca is None else " Clients need a certificate, too."
    said = f"a certificate for {', '.join(facts.names) or 'no name'}, valid until {facts.until:%Y-%m-%d}."
    return said + asked


def others_may_read(settings: TlsSettings) -> bool:
    """Whether every user of this machine may read the key."""
    return bool((settings.key or settings.cert).stat().st_mode & stat.S_IROTH)


def names_of(certificate: Mapping[str, Any] | None) -> list[str]:
    """The names in a client's certificate, as the setting `tls.clients` writes them: `CN=mailer`,
    `DNS=mailer.example`, `URI=spiffe://…`. `certificate` is what `getpeercert` returns."""
    found = []
    for part in (certificate or {}).get("subject", ()):
        found += [f"CN={value}" for kind, value in part if kind == "commonName"]
    for kind, value in (certificate or {}).get("subjectAltName", ()):
        found.append(f"{_ALTERNATIVE.get(kind, kind)}={value}")
    return found


_ALTERNATIVE = {"IP Address": "IP"}


class _Passphrase(Exception):
    """The key is encrypted."""


def _no_passphrase() -> str:
    raise _Passphrase


@contextlib.contextmanager
def _readable(name: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SetupError(f"`{name}` cannot be read: {path}: {error.strerror}") from None


def _wrong_with(error: ssl.SSLError, cert: Path, key: Path) -> str:
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"the key in {key} does not belong to the certificate in {cert}"
    if "-----BEGIN CERTIFICATE-----" not in cert.read_text("latin-1"):
        return f"{cert} holds no certificate (PEM)"
    if " PRIVATE KEY-----" not in key.read_text("latin-1"):
        return f"{key} holds no key (PEM); name the file that does in `tls.key`"
    return f"the certificate in {cert} and the key in {key} cannot be used: {error.reason or error}"


def _look(settings: TlsSettings) -> _Seen:
    return tuple(map(_facts, filter(None, (settings.cert, settings.key, settings.client_ca))))


def _facts(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
