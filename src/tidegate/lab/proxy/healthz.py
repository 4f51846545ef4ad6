"""kube-proxy's own health port (10256): ``/healthz`` and ``/livez``.

After pkg/proxy/healthcheck/proxy_health.go of v1.36: a healthy proxy says "now" in ``lastUpdated``, whatever it has
done; ``status`` by family, with the end of the last successful sync, is there since v1.33. Nothing in it says which
events a sync had seen.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tidegate import vtime
from tidegate.kube import wire
from tidegate.kube.exchange import Request, Response, whole
from tidegate.lab.faults import Faults
from tidegate.lab.proxy.health import Serve

HEALTHZ_PORT = 10256


@dataclass(frozen=True, slots=True)
class Told:
    """What is told. ``synced_at``: wall seconds of the last sync's end, 0.0 before the first."""

    is_healthy: bool
    synced_at: float


class Healthz:
    """The port of one proxy process. ``tell`` is asked for each request, ``tells_families`` as ``Shape`` has it."""

    def __init__(self, node: str, faults: Faults, tell: Callable[[], Told], *, tells_families: bool) -> None:
        self._node = node
        self._faults = faults
        self._tell = tell
        self._tells_families = tells_families
        self._server: wire.Server | None = None

    async def listen(self, address: str, serve: Serve) -> None:
        """Raises ``OSError`` when the port is somebody else's."""
        self._server = await serve(self._answer, address, HEALTHZ_PORT)

    async def close(self) -> None:
        if self._server is not None:
            await self._server.close()

    async def _answer(self, request: Request) -> Response:
        if request.path not in ("/healthz", "/livez"):
            return whole(404, b"404 page not found\n", "text/plain")
        await self._faults.thawed(self._node)
        told = self._tell()
        now = _instant(vtime.now().timestamp())
        body: dict[str, Any] = {"lastUpdated": now if told.is_healthy else _instant(told.synced_at), "currentTime": now}
        if request.path == "/healthz":
            body["nodeEligible"] = True
        if self._tells_families:
            body["healthy"] = told.is_healthy
            body["status"] = {"IPv4": {"lastUpdated": _instant(told.synced_at), "healthy": told.is_healthy}}
        return whole(200 if told.is_healthy else 503, json.dumps(body).encode(), x_content_type_options="nosniff")


def _instant(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
