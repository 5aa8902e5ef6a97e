"""TLS to a store: which authorities are believed, and which certificate presque shows.

The files are read for each connection, so one that was renewed is used from the next connection on.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from presque.errors import SetupError
from presque.store.address import Address


def context_of(address: Address) -> ssl.SSLContext | None:
    """TLS as this address wants it; None if it wants none.

    Raises `SetupError`, with a sentence, for files that cannot be used.
    """
    if not address.tls:
        return None
    for name, path in ("redis.ca", address.ca), ("redis.cert", address.cert), ("redis.key", address.key):
        if path is not None:
            try:
                Path(path).read_bytes()
            except OSError as error:
                raise SetupError(f"`{name}` cannot be read: {path}: {error.strerror}") from None
    try:
        context = ssl.create_default_context(cafile=address.ca)
    except ssl.SSLError:
        raise SetupError(f"`redis.ca` should hold certificates (PEM), and {address.ca} does not") from None
    if address.cert is not None:
        key = address.key or address.cert
        try:
            context.load_cert_chain(address.cert, key, password=_locked)
        except _Locked:
            raise SetupError(
                f"the key in {key} is locked with a password; give presque one that is not"
            ) from None
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise SetupError(
                    f"the key in {key} is not that of the certificate in {address.cert}"
                ) from None
            raise SetupError(
                f"`redis.cert` should hold a certificate and `redis.key` its key (PEM), "
                f"and {address.cert} and {key} do not"
            ) from None
    return context


class _Locked(Exception):
    """A key asks for a password, which nobody is there to type."""


def _locked() -> str:
    raise _Locked


def sentence(error: BaseException) -> str:
    """An error of the network without its numbers."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid here ({error.verify_message})"
    if isinstance(error, ssl.SSLError):
        if error.reason in _CERTIFICATE:
            return _CERTIFICATE[error.reason]
        reason = (error.reason or "no reason given").replace("_", " ").lower()
        return f"it does not speak TLS as presque does ({reason})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error) or type(error).__name__


_CERTIFICATE = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a certificate from presque: see `redis.cert`",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "it wants a certificate from presque, or no cipher is known to both",
    **dict.fromkeys(
        (
            "TLSV1_ALERT_UNKNOWN_CA",
            "SSLV3_ALERT_BAD_CERTIFICATE",
            "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
            "SSLV3_ALERT_CERTIFICATE_EXPIRED",
            "SSLV3_ALERT_CERTIFICATE_REVOKED",
            "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE",
        ),
        "it does not accept presque's certificate",
    ),
}
"""What a store says of the certificate that presque has shown it, or has not."""
