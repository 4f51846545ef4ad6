"""Probes of this node's own Service addresses: connections opened, held, and matched with the kernel's conntrack.

An agent must not become a port scanner. It dials only what its node's own tables forward for a Service (never the
fence, never an address somebody names), a bounded number at a time, for a bounded time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import cast

from tidegate.dataplane.facts import Facts, Route
from tidegate.model.endpoint import canonical
from tidegate.model.names import FENCE_PREFIX, SYSTEM_NAMESPACE
from tidegate.observers.probe import Connection, Opened, Probe
from tidegate.vtime.dial import dial

HELD_MAX = 500
"""Connections open at once, for all callers together."""
CONNECT_SECONDS = 2.0
TRACKED_SECONDS = 1.0
"""How long the kernel may take to show a connection that is open: a forwarder accepts after the handshake."""
POLL_SECONDS = 0.02
REPLY_SECONDS = 5.0
HEAD_BYTES_MAX = 64 * 1024


class TooManyProbes(Exception):
    """No room for this batch now."""


class Held(asyncio.Protocol):
    """One connection of a batch."""

    def __init__(self) -> None:
        self.source = ""
        self.status = 0
        self.is_lost = False
        self.answered = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        host, port, *_ = transport.get_extra_info("sockname")
        self.source = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def data_received(self, data: bytes) -> None:
        if not self.answered.is_set():
            self._head = (self._head + data)[:HEAD_BYTES_MAX]
            line, newline, _ = self._head.partition(b"\r\n")
            words = line.split()
            if newline and len(words) > 1 and words[0].startswith(b"HTTP/1.") and words[1].isdigit():
                self.status = int(words[1])
                self.answered.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self.answered.set()

    def ask(self, path: str, host: str) -> None:
        """Send one GET; the connection stays open after its answer, so that it can still be matched."""
        if self._transport is not None and not self.is_lost:
            head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: tidegate-probe\r\nAccept: */*\r\n\r\n"
            self._transport.write(head.encode("ascii"))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


class Prober:
    """Opens and holds batches for one node. ``facts`` reads the node's tables now."""

    def __init__(self, node: str, address: str, facts: Callable[[], Awaitable[Facts]]) -> None:
        self._node = node
        self._address = address
        self._facts = facts
        self._batches: dict[str, tuple[Held, ...]] = {}
        self._number = 0
        self._held = 0

    async def open(self, probe: Probe) -> Opened:
        """Raises ``TooManyProbes``."""
        if self._held + probe.count > HELD_MAX:
            raise TooManyProbes(f"{self._held} connections are held already, {HELD_MAX} at most")
        self._held += probe.count
        opened: list[Held] = []
        kept = 0
        try:
            facts = await self._facts()
            problem = _refusal(facts, probe, self._address)
            if problem:
                return Opened(node=self._node, problem=problem)
            target = (probe.address or self._address, probe.port)
            tried = await asyncio.gather(*(self._connect(target, opened) for _ in range(probe.count)))
            tracked = await self._tracked(opened)
            if probe.path:
                await _ask_all(opened, probe.path, f"{target[0]}:{target[1]}")
            standing = tuple(one for one in opened if one.source in tracked or not one.is_lost)
            kept = len(standing)
            return Opened(
                node=self._node,
                batch=self._keep(standing, probe.hold_seconds),
                connections=tuple(Connection(one.source, tracked.get(one.source, ""), one.status) for one in standing),
                refused=tried.count("refused") + len(opened) - len(standing),
                silent=tried.count("silent"),
            )
        finally:
            self._held -= probe.count - kept
            if not kept:
                _close(opened)

    def close(self, batch: str) -> None:
        """Let a batch go; one that is not known has gone already."""
        held = self._batches.pop(batch, ())
        self._held -= len(held)
        _close(held)

    def _keep(self, held: tuple[Held, ...], seconds: float) -> str:
        self._number += 1
        batch = str(self._number)
        self._batches[batch] = held
        asyncio.get_running_loop().call_later(seconds, self.close, batch)
        return batch

    async def _connect(self, target: tuple[str, int], opened: list[Held]) -> str:
        held = Held()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if ":" in target[0]:
                    await asyncio.get_running_loop().create_connection(lambda: held, *target)
                else:
                    await dial(lambda: held, target, self._address)
        except TimeoutError:
            return "silent"
        except OSError:
            return "refused"
        opened.append(held)
        return "opened"

    async def _tracked(self, opened: list[Held]) -> dict[str, str]:
        """Source -> endpoint, as the kernel tracks them; asked until every connection is shown or lost."""
        loop = asyncio.get_running_loop()
        until = loop.time() + TRACKED_SECONDS
        found: dict[str, str] = {}
        while True:
            facts = await self._facts()
            mine = {one.source for one in opened}
            found |= {str(one.source): str(one.endpoint) for one in facts.tracked if str(one.source) in mine}
            missing = [one for one in opened if one.source not in found and not one.is_lost]
            if not missing or loop.time() >= until:
                return found
            await asyncio.sleep(POLL_SECONDS)


def _refusal(facts: Facts, probe: Probe, own: str) -> str:
    """Why this address is not dialled from here; empty when it is one of the node's own."""
    if facts.unreadable:
        return "; ".join(str(one) for one in facts.unreadable)
    if any(_is_of(route, probe, own) for route in facts.routes):
        return ""
    where = f"{probe.via} {probe.address or '*'}:{probe.port}"
    return f"{where} is in no Service of this node's tables: it is not dialled from here"


def _is_of(route: Route, probe: Probe, own: str) -> bool:
    """The fence's own address is nobody's: its endpoint is a number, and dialling it would reach a stranger.

    A NodePort is at any address of the node, or at those that its rules name: ``own``, which is dialled, among them.
    """
    if (route.via, route.port, route.protocol) != (probe.via, probe.port, "TCP"):
        return False
    if not route.service or route.service.startswith(f"{SYSTEM_NAMESPACE}/{FENCE_PREFIX}"):
        return False
    try:
        return route.address in ((canonical(probe.address),) if probe.address else ("", own))
    except ValueError:
        return False


async def _ask_all(opened: Iterable[Held], path: str, host: str) -> None:
    for one in opened:
        one.ask(path, host)
    try:
        async with asyncio.timeout(REPLY_SECONDS):
            for one in opened:
                await one.answered.wait()
    except TimeoutError:
        return


def _close(held: Iterable[Held]) -> None:
    for one in held:
        one.close()
