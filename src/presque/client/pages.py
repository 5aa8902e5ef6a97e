"""Lists that come in pages: how a page is read, and how pages become one list. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from presque.client.call import Answer, object_of
from presque.client.errors import ClientError
from presque.client.shapes import shaped

T = TypeVar("T")
Row = TypeVar("Row", bound=Mapping[str, object])

LIST_MOST = 100_000
"""Rows in one list of all. A server holds 10,000 of a kind at most."""


def page_of(kind: type[list[T]], name: str) -> Callable[[Answer], tuple[list[T], str | None]]:
    """The meaning of a page: its rows, which the answer calls `name`, and the cursor for the next."""

    def meaning(answer: Answer) -> tuple[list[T], str | None]:
        page = object_of(answer)
        next = page["cursor"]
        return shaped(kind, page[name]), None if next is None else shaped(str, next)

    return meaning


def joined(found: list[Row], more: list[Row], by: str, what: str) -> list[Row]:
    """Two pages of a list that is in the order of the field `by`. Raises a `ClientError` about the pages of
    `what` if the second does not go on from the first.

    Otherwise a server that answers the same page again and again would never be done with.
    """
    goes_on = found and more and str(more[0].get(by, "")) > str(found[-1].get(by, ""))
    if not goes_on or len(found) > LIST_MOST:
        raise ClientError(f"the pages of {what} do not follow each other", code="unreadable-answer")
    return found + more
