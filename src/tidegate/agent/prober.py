"""The prober: a process without any privilege that connects from where it stands, and tells which epoch answered.

A pod of its own on a node (no capability, no token, the pod network). It dials one port and no other, and says no more
of what it meets than whether it was a fence: nobody scans a network with it.
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

import msgspec

from tidegate.kube import wire
from tidegate.kube.errors import Unreachable
from tidegate.kube.exchange import Request, Response, whole
from tidegate.model.endpoint import canonical
from tidegate.model.livefence import LIVE_PORT
from tidegate.observers.behavioural import PROBE_PATH, PROBER_PORT, probe

if TYPE_CHECKING:
    from tidegate.vtime import Program

AT_ONCE_MAX = 4


class Prober:
    """Answers ``GET /v1/fence?address=IP`` with a ``Slot``, or 502."""

    def __init__(self, node: str, local_host: str) -> None:
        self._node = node
        self._local_host = local_host
        self._turn = asyncio.Semaphore(AT_ONCE_MAX)

    async def exchange(self, request: Request) -> Response:
        """The HTTP API."""
        if request.path == "/healthz":
            return whole(200, b"ok", "text/plain")
        if request.path != PROBE_PATH or request.method != "GET":
            return whole(404, b'{"error": "not asked here"}')
        try:
            host = canonical(next(iter(request.params("address")), ""))
            async with self._turn:
                found = await probe(f"[{host}]:{LIVE_PORT}" if ":" in host else f"{host}:{LIVE_PORT}", self._local_host)
        except (Unreachable, ValueError):
            return whole(502, b'{"error": "no fence answers there"}')
        return whole(200, msgspec.json.encode(msgspec.structs.replace(found, node=self._node)))


async def main(program: Program) -> int:
    """Probe until SIGTERM. Environment: TIDEGATE_NODE, TIDEGATE_POD_ADDRESS (what it dials from; "": any)."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    address = program.env.get("TIDEGATE_POD_ADDRESS", "") or program.env.get("POD_IP", "")
    prober = Prober(program.env.get("TIDEGATE_NODE", ""), address)
    server = await wire.serve(prober.exchange, address or "0.0.0.0", PROBER_PORT)
    await stop.wait()
    await server.close()
    return 0
