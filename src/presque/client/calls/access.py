"""Access tokens, namespaces, links and the audit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from presque.client.answers import AccessToken, Link, NamespaceInfo, Rights
from presque.client.call import Answer, Call, answered, ask, no_content, object_of
from presque.client.errors import ClientError
from presque.client.shapes import shaped
from presque.tokens import id_of
from presque.verbs.bounds import PAGE_MOST


def new_token(fields: Mapping[str, Any]) -> Call[AccessToken]:
    """Make an access token."""
    return ask("new_token", answered(AccessToken), fields)


def tokens(cursor: str | None = None) -> Call[tuple[list[AccessToken], str | None]]:
    """A page of access tokens, and the cursor for the next."""

    def meaning(answer: Answer) -> tuple[list[AccessToken], str | None]:
        page = object_of(answer)
        next = page["cursor"]
        return shaped(list[AccessToken], page["tokens"]), None if next is None else shaped(str, next)

    return ask("tokens", meaning, {"cursor": cursor, "limit": PAGE_MOST})


def joined_tokens(found: list[AccessToken], more: list[AccessToken]) -> list[AccessToken]:
    """Two pages of access tokens. Raises a `ClientError` if the second does not go on from the first."""
    if not found or not more or more[0]["id"] <= found[-1]["id"]:
        raise ClientError("the pages of access tokens do not follow each other", code="unreadable-answer")
    return found + more


def revoke_token(id: str) -> Call[None]:
    """Make an access token invalid. Of a token itself only the id goes into the URL."""
    return ask("revoke_token", no_content, {"token_id": id_of(id)})


def new_namespace(name: str, quotas: Mapping[str, Any]) -> Call[NamespaceInfo]:
    """Make a namespace."""
    return ask("new_namespace", answered(NamespaceInfo), {"namespace": name, "quotas": quotas})


def namespaces(cursor: str | None = None) -> Call[tuple[list[NamespaceInfo], str | None]]:
    """A page of namespaces, and the cursor for the next."""

    def meaning(answer: Answer) -> tuple[list[NamespaceInfo], str | None]:
        page = object_of(answer)
        next = page["cursor"]
        return shaped(list[NamespaceInfo], page["namespaces"]), None if next is None else shaped(str, next)

    return ask("namespaces", meaning, {"cursor": cursor, "limit": PAGE_MOST})


def joined_namespaces(found: list[NamespaceInfo], more: list[NamespaceInfo]) -> list[NamespaceInfo]:
    """Two pages of namespaces. Raises a `ClientError` if the second does not go on from the first."""
    if not found or not more or more[0]["namespace"] <= found[-1]["namespace"]:
        raise ClientError("the pages of namespaces do not follow each other", code="unreadable-answer")
    return found + more


def namespace(name: str) -> Call[NamespaceInfo]:
    """One namespace, and what there is in it."""
    return ask("namespace", answered(NamespaceInfo), {"namespace": name})


def change_namespace(name: str, quotas: Mapping[str, Any]) -> Call[NamespaceInfo]:
    """Change quotas of a namespace."""
    return ask("change_namespace", answered(NamespaceInfo), {"namespace": name, "quotas": quotas})


def delete_namespace(name: str) -> Call[None]:
    """Delete a namespace with all that is in it."""
    return ask("delete_namespace", no_content, {"namespace": name})


def audit(limit: int | None, cursor: str | None) -> Call[tuple[list[dict[str, Any]], str | None]]:
    """A page of the audit, newest first, and the cursor for the next."""

    def meaning(answer: Answer) -> tuple[list[dict[str, Any]], str | None]:
        page = object_of(answer)
        next = page["cursor"]
        return shaped(list[dict[str, Any]], page["audit"]), None if next is None else shaped(str, next)

    return ask("audit", meaning, {"limit": limit, "cursor": cursor})


def link(queue: str, id: str, allow: str, expires: Any) -> Call[Link]:
    """Make a URL that is good for one act on one job."""
    return ask("link", answered(Link), {"queue": queue, "id": id, "allow": allow, "expires": expires})


def whoami() -> Call[Rights]:
    """Who the caller is, and what the caller may do."""
    return ask("whoami", answered(Rights), {})
