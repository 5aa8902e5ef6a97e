"""Whose certificates a client believes, and which one it shows itself.

The environment says so, with files in PEM: `PRESQUE_CA` holds the authorities to believe instead of those of
the system, `PRESQUE_CERT` the certificate to show to a server that asks for one, and `PRESQUE_KEY` its key,
unless the file of the certificate holds it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from presque.client.address import Address

if TYPE_CHECKING:
    import ssl


def context_for(address: Address) -> ssl.SSLContext | None:
    """How to speak TLS with this server; None for one that is reached without.

    Raises `ValueError` with a sentence for a file that cannot be used.
    """
    if not address.tls:
        return None
    import ssl  # a sixth of what a program that pushes takes to start, and many need no TLS

    ca, cert = os.environ.get("PRESQUE_CA") or None, os.environ.get("PRESQUE_CERT") or None
    try:
        context = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise ValueError(f"PRESQUE_CA: {ca} holds no certificates that can be read: {_why(error)}") from None
    if cert is not None:
        try:
            context.load_cert_chain(cert, os.environ.get("PRESQUE_KEY") or None, password=_no_passphrase)
        except (OSError, _Passphrase) as error:
            raise ValueError(f"PRESQUE_CERT: {cert} cannot be used with its key: {_why(error)}") from None
    return context


class _Passphrase(Exception):
    """The key is encrypted."""

    strerror = "the key has a passphrase"


def _no_passphrase() -> str:
    raise _Passphrase


def _why(error: OSError | _Passphrase) -> str:
    """`ssl.SSLError` is an `OSError` with a reason of its own."""
    return str(getattr(error, "reason", None) or error.strerror or error)
