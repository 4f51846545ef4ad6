"""Watch decoding: events per second out of `KubeClient.watch`, one core, no network.

The same stream of pod changes (a running pod as kubectl shows it, managedFields and all) and of slice changes is fed
in 64 KiB chunks, as aiohttp delivers them. "Nouns" adds what the engine does with each object: ``model.pod.decode``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from bench.figures import Figure, at_least, number
from bench.samples import endpoint_slice, running_pod
from tidegate import vtime
from tidegate.kube.api import ENDPOINTSLICES, PODS, JsonObject, Resource
from tidegate.kube.client import KubeClient
from tidegate.kube.exchange import Request, Response
from tidegate.model import endpointslice, pod

EVENTS = 20_000
CHUNK_BYTES = 64 * 1024
EVENTS_PER_SECOND_MIN = 50_000.0
ROUNDS = 3

Look = Callable[[JsonObject], Any]


def stream_of(objects: Callable[[int], JsonObject], count: int) -> bytes:
    """So many MODIFIED lines."""
    lines = [msgspec.json.encode({"type": "MODIFIED", "object": objects(index)}) for index in range(count)]
    return b"\n".join(lines) + b"\n"


def client_of(stream: bytes) -> KubeClient:
    """A client whose server sends ``stream`` and ends."""

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(stream), CHUNK_BYTES):
            yield stream[start : start + CHUNK_BYTES]

    async def exchange(request: Request) -> Response:
        del request
        return Response(200, {}, chunks())

    return KubeClient(exchange)


async def consume(stream: bytes, resource: Resource, look: Look | None) -> tuple[int, float]:
    """Events and seconds of one pass."""
    count = 0
    begun = time.perf_counter()
    async for event in client_of(stream).watch(resource):
        count += 1
        if look is not None:
            look(event.object)
    return count, time.perf_counter() - begun


def best(runner: asyncio.Runner, stream: bytes, resource: Resource, look: Look | None = None) -> float:
    """Events per second, best of ``ROUNDS``: the rest is other work on the machine."""
    found = []
    for _ in range(ROUNDS):
        count, seconds = runner.run(consume(stream, resource, look))
        assert count == EVENTS
        found.append(count / seconds)
    return max(found)


def run() -> list[Figure]:
    figures = []
    cases: list[tuple[str, Resource, Callable[[int], JsonObject], Look]] = [
        ("pod", PODS, running_pod, pod.decode),
        ("slice of 5 endpoints", ENDPOINTSLICES, endpoint_slice, endpointslice.decode),
    ]
    with asyncio.Runner(loop_factory=vtime.new_event_loop) as runner:
        for name, resource, objects, decode in cases:
            stream = stream_of(objects, EVENTS)
            note = f"{number(len(stream) / EVENTS)} bytes each"
            plain = best(runner, stream, resource)
            figures.append(at_least(f"{name} events", plain, "/s", EVENTS_PER_SECOND_MIN, note))
            figures.append(Figure(f"{name} events, as nouns", best(runner, stream, resource, decode), "/s"))
    return figures
