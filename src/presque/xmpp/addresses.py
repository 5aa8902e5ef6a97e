"""The addresses of queues: `mail` is `mail@presque.example`; no I/O.

The part of an address before the @ may not hold every character that a queue's name may, and servers turn it
into lower case. XEP-0106 writes characters that are not allowed as `\\` and two hexadecimal digits: `:` as
`\\3a`, `@` as `\\40`. In the same manner, and beyond that XEP, an upper-case letter is written so: `Mail` is
`\\4dail`. A queue's name has no `\\`, so every name has one address and every address one name.
"""

from __future__ import annotations

import re

from presque import names
from presque.errors import InvalidName, shown

_to_escape = re.compile(r"[A-Z@:]").sub
_escaped = re.compile(r"\\([0-9a-f]{2})").sub


def local_part(queue: str) -> str:
    """The part before the @ of a queue's address."""
    return _to_escape(lambda found: f"\\{ord(found[0]):02x}", queue)


def address(queue: str, domain: str) -> str:
    """The address of a queue."""
    return f"{local_part(queue)}@{domain}"


def queue_of(jid: str) -> str | None:
    """The queue that an address is of; None for that of presque itself. Raises `InvalidName`."""
    local, at, _ = bare(jid).rpartition("@")
    if not at:
        return None
    name = _escaped(lambda found: chr(int(found[1], 16)), local)
    if not names.is_queue(name) or local_part(name) != local:
        raise InvalidName(
            f"`{shown(local)}` is not the address of a queue: write letters in lower case, `\\3a` for :, "
            "`\\40` for @, and `\\4d` and the like for upper case"
        )
    return name


def bare(jid: str) -> str:
    """An address without its resource."""
    return jid.partition("/")[0]


def domain_of(jid: str) -> str:
    """The domain of an address."""
    return bare(jid).rpartition("@")[2]
