"""What to do with a request: the seam between connections, which know no verb, and verbs, which know no bytes
on their way in."""

from __future__ import annotations

import abc
from typing import Protocol

from presque.http.answering import Answering
from presque.http.head import Head
from presque.http.parts import Parts
from presque.http.proxies import Client


class Plan(Protocol):
    """What to do with a request, worked out from its head."""

    @property
    def common(self) -> bool:
        """Whether other requests may have the same head."""

    def serve(self, connection: Answering, body: bytes) -> None:
        """Carry the request out: answer it, or see to it that it will be answered.

        A `PresqueError` that it raises is the answer; any other exception is answered with 500.
        """


class Upload(abc.ABC):
    """A plan that takes the body of its request as it comes, whatever its length."""

    common = True
    hurried = False
    """Whether all of the body has to come within `limits.body`, instead of each part after the one before."""

    def serve(self, connection: Answering, _body: bytes) -> None:
        """Never called: a body that is taken part by part is not there whole."""
        raise NotImplementedError

    @abc.abstractmethod
    async def receive(self, connection: Answering, parts: Parts) -> None:
        """Read the parts and answer. An answer before the last part ends the connection."""


class Namespace(Protocol):
    """Counts the connections of those who ask in it."""

    def enter(self) -> None:
        """Count one. Raises `PresqueError` if it is one too many."""

    def leave(self) -> None:
        """One has ended."""


class Planner(Protocol):
    """Works out what a head asks for."""

    def __call__(self, head: Head, client: Client, /) -> Plan:
        """The plan of a request from this client. A `PresqueError` that it raises is the answer."""

    def cors(self, head: Head) -> bytes:
        """Lines for the head of each answer to this request."""

    def namespace(self, plan: Plan) -> Namespace | None:
        """In which namespace a plan is carried out, None for the server's own."""

    def body_most(self, plan: Plan) -> int:
        """How many bytes the body of a request with this plan may have."""

    def name(self, plan: Plan) -> str:
        """What answers of this plan are counted as."""
