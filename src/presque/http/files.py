"""Files for browsers: the dashboard, as HTTP answers with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from presque.fields import read_texts
from presque.http import head as heads
from presque.http.answering import Answering
from presque.http.answers import Answer
from presque.http.head import Head
from presque.http.plan import Plan
from presque.http.problems import MethodNotAllowed


class Page(Protocol):
    """A file for browsers."""

    @property
    def kind(self) -> str: ...

    @property
    def content(self) -> bytes: ...

    @property
    def packed(self) -> bytes: ...

    @property
    def tag(self) -> str: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    def under(self, prefix: str) -> Page: ...


class OfPage(msgspec.Struct, frozen=True):
    """The plan of a file for browsers."""

    page: Page
    known: bool
    packed: bool
    common: bool = True

    def serve(self, connection: Answering, _body: bytes) -> None:
        page = self.page
        if self.known:
            connection.answer(Answer(status=304, headers=page.headers))
        elif self.packed:
            # The tag is weak: it names what is inside, packed or not.
            headers = {**page.headers, "ETag": f"W/{page.tag}", "Content-Encoding": "gzip"}
            connection.answer(Answer(page.packed, headers=headers, kind=page.kind))
        else:
            connection.answer(Answer(page.content, headers=page.headers, kind=page.kind))


def of_page(page: Page, head: Head) -> Plan:
    if head.method not in ("GET", "HEAD"):
        raise MethodNotAllowed(head.method, ("GET", "HEAD"))
    read_texts({}, heads.fields(head.query))  # a page takes no parameters
    known = head.headers.get("if-none-match", "").removeprefix("W/") == page.tag
    return OfPage(page, known, _takes_gzip(head.headers.get("accept-encoding", "")))


def _takes_gzip(accepted: str) -> bool:
    """Whether a client reads gzip: it names it, and not with the weight 0 (RFC 9110, 12.5.3)."""
    for part in accepted.lower().split(","):
        coding, _, weight = part.partition(";")
        if coding.strip() == "gzip":
            return weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
