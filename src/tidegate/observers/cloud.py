"""What observers of cloud load balancers share: one request over TLS, or straight into a server of a virtual world."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from tidegate.kube.connect import open_exchange
from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Request
from tidegate.observers.external import Fencing, Replica, Services

POLL_SECONDS = 3.0
"""Clouds throttle by the account: every third second while pods drain, however many."""
BODY_BYTES_MAX = 8 * 1024 * 1024
Loaded = TypeVar("Loaded")


class Groups:
    """An observer of groups of targets, a replica each; its evidence is weak: a control plane's word, without an
    epoch."""

    fencing = Fencing.SINGLE
    additions = "listed"
    registers_late = True
    poll_seconds = POLL_SECONDS
    _services: dict[str, frozenset[str]] | None = None
    """A group's address -> the Services (namespace/name) whose pods are in it; None while that is not known."""

    def concerns(self, replica: Replica, services: Services) -> bool:
        known = self._services_of(replica)
        return known is None or not known.isdisjoint(services)

    def _services_of(self, replica: Replica) -> frozenset[str] | None:
        return (self._services or {}).get(replica.address)


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")


async def fetch(server: str, request: Request) -> Answer:
    """One request to ``https://host``. Raises ``Unreachable``; 5xx is no answer."""
    async with open_exchange(server) as exchange:
        response = await exchange(request)
        body = await response.read()
    if len(body) > BODY_BYTES_MAX:
        raise Unreachable(f"{server}: an answer of {len(body)} bytes")
    if response.status >= 500:
        raise Unreachable(f"{server} answered {response.status}")
    return Answer(response.status, body, response.headers)


async def loaded(what: str, load: Callable[[], Loaded]) -> Loaded:
    """Credentials by their library's own chain, which may ask the network: in a thread. Raises ``Unreachable``.

    Of what fails only the kind is told: its message may hold what is secret.
    """
    try:
        return await asyncio.to_thread(load)
    except Unreachable:
        raise
    except Exception as error:  # each library has its own, and the module is an extra
        raise Unreachable(f"{what}: {type(error).__name__}") from error
