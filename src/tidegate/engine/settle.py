"""A stand-in for the coordinator where a cluster has none: lists the source itself, then waits a stated time.

Nobody is asked and no fence is written, so every node's answer is ``assumed`` after the settle time and the drain's
result can never be ``verified``.
"""

from __future__ import annotations

import asyncio

from tidegate import vtime
from tidegate.drain.acknowledgement import Verdict
from tidegate.drain.fence import FenceWrite
from tidegate.engine.flights import Flight, Flights, key_of
from tidegate.engine.sourcing import Sourcing
from tidegate.kube.api import NODES, Api
from tidegate.model.epoch import Epoch
from tidegate.observers.coordinator import Ask, NodeView, View, spell

LIST_SECONDS = 0.5
UNFENCED = Epoch("unfenced", 0)
"""No data plane shows it, and none is asked for it: the table wants a number to file assumptions under."""


class SettleTime:
    """``Coordinator`` of a cluster without one. ``seconds``: the stated time, from a clean list on."""

    def __init__(self, api: Api, seconds: float) -> None:
        self._api = api
        self._seconds = seconds
        self._flights = Flights()
        self._sourcing = Sourcing(api, self._flights, lambda line: None)
        self._nodes: tuple[str, ...] | None = None

    async def acknowledge(self, ask: Ask) -> View:
        """Raises ``KubeError`` when the API does not answer."""
        loop = asyncio.get_running_loop()
        if ask.done:
            self._flights.forget(key_of(ask))
            return View(instance="settle", now=loop.time(), spell="", version="done")
        flight = self._flights.touch(ask, loop.time())
        if ask.since and not ask.fresh:
            await asyncio.sleep(min(ask.wait_seconds, LIST_SECONDS))
        nodes = await self._api.list(NODES)
        self._nodes = tuple(sorted(obj["metadata"]["name"] for obj in nodes.items)) or ("the cluster",)
        is_listed = await self._sourcing.list_now()
        if flight.wants_epoch:
            await asyncio.sleep(0.001)  # sent after the list, by the clock too
            flight.write = FenceWrite(UNFENCED, loop.time())
        return self._view(flight, is_listed)

    def _view(self, flight: Flight, is_listed: bool) -> View:
        now = asyncio.get_running_loop().time()
        left = self._seconds if flight.clean_at is None else max(0.0, flight.clean_at + self._seconds - now)
        verdict = Verdict.PENDING if left else Verdict.ASSUMED
        detail = f"nobody to ask: {left:.0f} s of the settle time are left" if left else _stated(self._seconds)
        at = vtime.now().timestamp()
        nodes = tuple(NodeView(name, verdict.value, detail, "settle time", at) for name in self._nodes or ())
        return View(
            instance="settle",
            now=now,
            spell=f"settle/{flight.round}/{flight.spell}",
            clean_at=flight.clean_at,
            reasons=flight.reasons,
            epoch=str(flight.write.epoch) if flight.write else "",
            sent_at=flight.write.sent_at if flight.write else None,
            observers=self._nodes,
            suspected=flight.suspected,
            serving=spell(flight.serving),
            nodes=nodes if flight.write else (),
            version=f"{now}",
            is_fresh=is_listed,
        )


def _stated(seconds: float) -> str:
    return f"no agent to ask, {seconds:g} s of settle time have passed"
