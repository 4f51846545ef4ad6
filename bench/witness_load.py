"""Clients of the witness bench: every way into a Service that a node's kernel has, at once and for as long as it runs.

HTTP is the open-loop load of ``rehearse``, one process per way; UDP is a few flows per node that ask on one socket for
ever (each has its own conntrack entry) and as many that take a fresh socket for each question.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.lab.network.namespaces import inside
from tidegate.rehearse.loadspec import LoadSpec, Source
from tidegate.rehearse.real import RealStage
from tidegate.rehearse.samples import Sample

UDP_PAUSE_SECONDS = 0.05
UDP_PATIENCE_SECONDS = 2.0
_ECHO_BYTES = 8


@dataclass(frozen=True, slots=True)
class Way:
    """One way in: its name, where it leads, from where it is gone, how many requests per second."""

    name: str
    host: str
    port: int
    sources: tuple[Source, ...]
    new_per_second: float
    pool_per_second: float = 0.0


@dataclass(slots=True)
class Datagrams:
    """UDP questions of one namespace and what became of them."""

    asked: int = 0
    lost: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Traffic:
    """What all clients came to; complete once they have ended."""

    samples: dict[str, list[Sample]] = field(default_factory=dict)
    """By way."""
    datagrams: Datagrams = field(default_factory=Datagrams)

    @property
    def sent(self) -> int:
        return sum(len(some) for some in self.samples.values()) + self.datagrams.asked

    @property
    def lost(self) -> list[str]:
        http = [
            f"{way}: {one.outcome} from {one.source} ({one.lane}), pod {one.pod or '?'}"
            for way, some in self.samples.items()
            for one in some
            if one.is_lost
        ]
        return http + self.datagrams.lost

    @property
    def late_fraction(self) -> float:
        every = [one for some in self.samples.values() for one in some]
        return sum(one.late_seconds > 0.1 for one in every) / max(1, len(every))


@contextlib.asynccontextmanager
async def traffic(stage: RealStage, ways: tuple[Way, ...], udp: tuple[str, int] | None) -> AsyncIterator[Traffic]:
    """All clients at work for as long as this is open. ``udp``: the UDP Service's ClusterIP and port."""
    seen, over = Traffic(), asyncio.Event()
    loads = []
    for way in ways:
        spec = LoadSpec(
            host=way.host,
            port=way.port,
            sources=way.sources,
            output=str(Path(stage.scratch) / f"witness-{way.name}.jsonl"),
            new_per_second=way.new_per_second,
            pool_per_second=way.pool_per_second,
            deadline_seconds=10.0,
        )
        Path(spec.output).unlink(missing_ok=True)
        loads.append((way, await stage.start_load(spec)))
    asking = []
    if udp is not None:
        for source in stage.sources:
            for is_fresh in (False, True):
                asking.append(asyncio.create_task(_ask(source, udp, is_fresh, seen.datagrams, over)))
    try:
        yield seen
    finally:
        over.set()
        for way, load in loads:
            seen.samples[way.name] = list(await load.stop())
        await asyncio.gather(*asking)


async def _ask(source: Source, at: tuple[str, int], is_fresh: bool, into: Datagrams, over: asyncio.Event) -> None:
    """One question after the other; a lost one is a question without its answer, however often others came through."""
    loop = asyncio.get_running_loop()
    namespace = os.open(source.namespace, os.O_RDONLY | os.O_CLOEXEC)
    asking, number = _socket(namespace, at), 0
    try:
        while not over.is_set():
            if is_fresh and number:
                asking.close()
                asking = _socket(namespace, at)
            number += 1
            into.asked += 1
            question = struct.pack("!Q", number)
            try:
                await loop.sock_sendall(asking, question)
                async with asyncio.timeout(UDP_PATIENCE_SECONDS):
                    while (await loop.sock_recv(asking, 512))[:_ECHO_BYTES] != question:
                        pass  # the late answer to a question that was given up
            except (OSError, TimeoutError) as error:
                lane = "fresh" if is_fresh else "kept"
                into.lost.append(f"udp: {type(error).__name__} from {source.node} ({lane} socket)")
            await asyncio.sleep(UDP_PAUSE_SECONDS)
    finally:
        asking.close()
        os.close(namespace)


def _socket(namespace: int, at: tuple[str, int]) -> socket.socket:
    with inside(namespace):
        made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setblocking(False)
    made.connect(at)
    return made
