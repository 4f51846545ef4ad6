"""The way from an agent to the coordinator: the Lease says where it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from tidegate.agent.lease import LeaseSettings
from tidegate.kube import wire
from tidegate.kube.api import LEASES, Api
from tidegate.kube.errors import KubeError, NoCertificate
from tidegate.kube.exchange import Request
from tidegate.observers.asking import COORDINATOR_NAME
from tidegate.observers.coordinator import (
    ACKNOWLEDGE_PATH,
    Ask,
    CoordinatorUnreachable,
    View,
    decode_view,
    lease_address,
)

if TYPE_CHECKING:
    import ssl

    from tidegate.kube.tls import Credentials

ANSWER_SECONDS = 5.0
"""Beyond the wait that was asked for: a fresh look asks every node, each for at most 2 s."""


class Leader:
    """Asks whoever holds the Lease; looks it up anew after any failure."""

    def __init__(self, api: Api, lease: LeaseSettings | None = None, credentials: Credentials | None = None) -> None:
        self._api = api
        self._lease = lease or LeaseSettings()
        self._address: tuple[str, int] | None = None
        self._credentials = credentials
        self._tls: ssl.SSLContext | None = None

    async def acknowledge(self, ask: Ask) -> View:
        """Raises ``CoordinatorUnreachable``."""
        try:
            if self._address is None:
                lease = await self._api.get(LEASES, self._lease.name, self._lease.namespace)
                self._address = lease_address(lease)
            host, port = self._address
            if self._credentials is not None and self._tls is None:
                self._tls = self._credentials.client()
            peer = wire.Peer(host, port, "", ask.wait_seconds + ANSWER_SECONDS, self._tls, COORDINATOR_NAME)
            headers = {"content-type": "application/json"}
            status, _, body = await wire.fetch(
                peer, Request("POST", ACKNOWLEDGE_PATH, (), headers, msgspec.json.encode(ask))
            )
            return decode_view(status, body)
        except CoordinatorUnreachable:
            self._address = None
            raise
        except (KubeError, NoCertificate) as error:
            self._address = None
            raise CoordinatorUnreachable(f"the coordinator does not answer: {error}") from error
