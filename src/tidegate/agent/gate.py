"""The gate's far end: the holder asks here, over a UNIX socket, and is told when a container may be stopped.

One drain per pod, however many of its containers are held. Results are recorded on the pod before the holder
hears them, and the holder confirms before the kubelet does: a hold whose holder is gone is never ``verified``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from tidegate.agent.holds import HeldPod, Holds
from tidegate.model.names import DrainResult, Ending

HEARTBEAT_SECONDS = 1.0
CONFIRM_SECONDS = 10.0
ASK_SECONDS = 10.0
"""Both of a holder that is there and is not run by its machine: one that ends is known to be gone at once."""
LINE_BYTES_MAX = 4096


class Drains(Protocol):
    """Finds out which pod is asking, and drains it (``agent.drains.PodDrains``)."""

    async def identify(self, ip: str, token: str = "") -> HeldPod | DrainResult:
        """The leaving pod at ``ip``, or on the node's network with this ``token``; or why its gate is to be answered
        at once."""
        ...

    async def drain(self, pod: HeldPod, container: str) -> DrainResult:
        """The pod's result, recorded on it."""
        ...

    def abandoned(self, pod: HeldPod, container: str, why: str) -> None:
        """Nobody waits for this container's answer any more."""
        ...


@dataclass(slots=True)
class Gate:
    """Serves the holder of this node."""

    drains: Drains
    holds: Holds
    log: Callable[[str], None]
    open: int = 0
    idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.idle.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One hold, one connection. Never raises."""
        self.open += 1
        self.idle.clear()
        beating = asyncio.get_running_loop().create_task(_beat(writer))
        try:
            async with asyncio.timeout(ASK_SECONDS):
                hold = json.loads(await reader.readuntil(b"\n"))["hold"]
            found = await self.drains.identify(str(hold["ip"]), str(hold.get("token") or ""))
            asked = (str(hold["ip"]) or "a pod of the node's network", str(hold["container"]))
            await self._hold(found, asked, reader, writer)
        except (OSError, EOFError, ValueError, KeyError, TypeError, TimeoutError, asyncio.LimitOverrunError) as error:
            self.log(f"not a hold: {error!r}")
        finally:
            beating.cancel()
            writer.close()
            self.open -= 1
            if not self.open:
                self.idle.set()

    async def _hold(
        self,
        pod: HeldPod | DrainResult,
        asked: tuple[str, str],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        ip, container = asked
        if isinstance(pod, DrainResult):
            self.log(f"{ip} {container}: answered at once, {pod}")
            self.holds.journal.record("answered-at-once", ip=ip, container=container, reason=pod.reason)
            await self._release(pod, reader, writer)
            return
        self.holds.began(pod, container)
        draining = asyncio.get_running_loop().create_task(self.drains.drain(pod, container))
        hung_up = asyncio.get_running_loop().create_task(reader.read(1))
        try:
            await asyncio.wait((draining, hung_up), return_when=asyncio.FIRST_COMPLETED)
            if hung_up.done():  # the holder speaks only after a release: this is its end
                self._died(pod, container, "the holder ended during the hold")
                return
            hung_up.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await hung_up
            try:
                result = draining.result()
            except Exception as error:  # a bug of ours: the holder's sleep is the answer, and the record says so
                self._died(pod, container, f"the agent failed: {error!r}")
                return
            answered = await self._release(result, reader, writer)
            if answered:
                self.holds.ended(pod, container, result)
                self.log(f"{pod.name} {container}: {result}")
            else:
                why = "the holder" if answered is None else "the kubelet"
                self._died(pod, container, f"{why} had gone when the hold was to be answered")
        finally:
            draining.cancel()
            hung_up.cancel()

    def _died(self, pod: HeldPod, container: str, why: str) -> None:
        self.log(f"{pod.name} {container}: bypassed, {why}")
        self.holds.ended(pod, container, DrainResult(Ending.BYPASSED, why))
        self.drains.abandoned(pod, container, why)

    async def _release(
        self, result: DrainResult, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> int | None:
        """Tell the holder; how many kubelet connections it answered, None when it is gone."""
        told = {"release": {"result": result.result.value, "reason": result.reason}}
        try:
            writer.write(json.dumps(told).encode() + b"\n")
            async with asyncio.timeout(CONFIRM_SECONDS):
                return int(json.loads(await reader.readuntil(b"\n"))["answered"])
        except (OSError, EOFError, ValueError, KeyError, TypeError, TimeoutError, asyncio.LimitOverrunError):
            return None


async def _beat(writer: asyncio.StreamWriter) -> None:
    """The holder gives us up when three of these are missing after its fallback sleep would have ended."""
    beats = 0
    while not writer.is_closing():
        writer.write(json.dumps({"heartbeat": beats}).encode() + b"\n")
        beats += 1
        await asyncio.sleep(HEARTBEAT_SECONDS)
