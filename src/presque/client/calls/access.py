"""Access tokens, namespaces, links and the audit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from presque.client.answers import AccessToken, Link, NamespaceInfo, Rights
from presque.client.call import Call, answered, ask, no_content
from presque.client.pages import page_of
from presque.tokens import id_of
from presque.verbs.bounds import PAGE_MOST


def new_token(fields: Mapping[str, Any]) -> Call[AccessToken]:
    """Make an access token."""
    return ask("new_token", answered(AccessToken), fields)


def tokens(cursor: str | None = None) -> Call[tuple[list[AccessToken], str | None]]:
    """A page of access tokens, and the cursor for the next."""
    return ask("tokens", page_of(list[AccessToken], "tokens"), {"cursor": cursor, "limit": PAGE_MOST})


def revoke_token(id: str) -> Call[None]:
    """Make an access token invalid. Of a token itself only the id goes into the URL."""
    return ask("revoke_token", no_content, {"token_id": id_of(id)})


def new_namespace(name: str, quotas: Mapping[str, Any]) -> Call[NamespaceInfo]:
    """Make a namespace."""
    return ask("new_namespace", answered(NamespaceInfo), {"namespace": name, "quotas": quotas})


def namespaces(cursor: str | None = None) -> Call[tuple[list[NamespaceInfo], str | None]]:
    """A page of namespaces, and the cursor for the next."""
    return ask(
        "namespaces", page_of(list[NamespaceInfo], "namespaces"), {"cursor": cursor, "limit": PAGE_MOST}
    )


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
    return ask("audit", page_of(list[dict[str, Any]], "audit"), {"limit": limit, "cursor": cursor})


def link(queue: str, id: str, allow: str, expires: Any) -> Call[Link]:
    """Make a URL that is good for one act on one job."""
    return ask("link", answered(Link), {"queue": queue, "id": id, "allow": allow, "expires": expires})


def whoami() -> Call[Rights]:
    """Who the caller is, and what the caller may do."""
    return ask("whoami", answered(Rights), {})
