"""Answers that are read as they come, for the commands that follow a stream."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterator, Mapping

from presque.cli.connection import failure
from presque.client.address import Address
from presque.client.errors import refusal
from presque.client.trust import context_for

SILENT_S = 60.0  # after which the server is taken for gone


@contextlib.contextmanager
def opened(
    address: Address, token: str | None, target: str, headers: Mapping[str, str]
) -> Iterator[http.client.HTTPResponse]:
    """The answer to a GET, whose body is still to come. Raises `Failure` when the server refuses, `OSError`
    or `HTTPException` when it goes."""
    context = context_for(address)
    if context is None:
        connection = http.client.HTTPConnection(address.host, address.port, timeout=SILENT_S)
    else:
        connection = http.client.HTTPSConnection(
            address.host, address.port, timeout=SILENT_S, context=context
        )
    shown = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        connection.request("GET", f"{address.prefix}{target}", headers={**headers, **shown})
        answer = connection.getresponse()
        if answer.status != 200:
            code = {"presque-error": answer.headers.get("Presque-Error", "")}
            raise failure(refusal(answer.status, answer.read(65536), code))
        yield answer
    finally:
        connection.close()
