"""Rainbow releases in a virtual lab: WebSocket clients that stay for minutes, a work queue, six releases beside each
other, the ten pods of the long story."""

from __future__ import annotations

import asyncio
import contextlib

from scene import NODES, ask, play
from stage import NS, deployment, first

from tidegate.client.release.book import ConfigMapBook
from tidegate.client.release.command import About, ReleaseOptions, carry_on
from tidegate.kube.api import DEPLOYMENTS, PODS, SERVICES
from tidegate.kube.errors import ApiError
from tidegate.release.record import Phase
from tidegate.release.spec import Rainbow, Spec


def masked(code, payload=b""):
    mask = b"\x01\x02\x03\x04"
    body = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return bytes([0x80 | code, 0x80 | len(payload)]) + mask + body


class Client:
    """A WebSocket through the Service that says something every second, until it leaves."""

    def __init__(self, stage, source):
        self.stage, self.source = stage, source
        self.heard, self.cut = 0, ""
        self.version = ""

    async def run(self, seconds):
        service = await self.stage.api.get(SERVICES, "echo", NS)
        try:
            reader, writer = await asyncio.open_connection(
                service["spec"]["clusterIP"], service["spec"]["ports"][0]["port"], local_addr=(NODES[self.source], 0)
            )
            writer.write(
                b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"101 Switching" in head and b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head  # RFC 6455, 1.3
            until = self.stage.now + seconds
            while self.stage.now < until:
                writer.write(masked(1, b"hello"))
                assert await reader.readexactly(7) == b"\x81\x05hello"
                self.heard += 1
                await asyncio.sleep(1.0)
            writer.write(masked(8, b"\x03\xe8"))
            assert await reader.readexactly(4) == b"\x88\x02\x03\xe8"
            writer.close()
        except (OSError, asyncio.IncompleteReadError, AssertionError) as error:
            self.cut = f"{self.source} after {self.heard} s: {error!r}"


class Rainbows:
    """A stage with an engine at work, as one command line after the other would be."""

    def __init__(self, stage, **rainbow):
        self.stage, self.rainbow = stage, rainbow
        self.book = ConfigMapBook(stage.client, NS, "echo")
        self.clients, self.tasks, self.pods, self.lost = [], [], {}, []
        self.engine = None

    async def release(self, tag, **fields):
        """Ask for it; the engine at work carries it."""
        spec = Spec(
            "echo",
            "rainbow",
            images={"echo": f"tidegate/echo:{tag}"},
            rainbow=Rainbow(**{"service": "echo", "idle_seconds": 3.0, "retire_seconds": 15.0, **self.rainbow}),
            **fields,
        )
        entry = await self.book.read()
        if entry is None:
            await self.book.begin(spec)
        else:
            await self.book.ask(entry, spec)
        if self.engine is None:
            self.engine = asyncio.create_task(self._carry())

    async def _carry(self):
        while True:
            with contextlib.suppress(ApiError):
                await carry_on(self.stage.client, self.book, About(NS, "echo"), ReleaseOptions(seed=0))
            await asyncio.sleep(0.5)

    async def status(self):
        return (await self.book.read()).status

    async def until(self, condition, within=200.0):
        end = self.stage.now + within
        while True:
            entry = await self.book.read()
            await self._count()
            if entry.status.generation == entry.generation and condition(entry.status):
                return entry.status
            assert self.stage.now < end, f"{entry.status.phase}: {entry.status.reason}\n" + "\n".join(
                note.text for note in entry.status.notes
            )
            await asyncio.sleep(0.5)

    async def current(self, within=200.0):
        """Until the one asked for has all new traffic."""
        await self.until(lambda status: status.stable == status.revision, within)

    async def _count(self):
        """Revision -> the numbers of pods that it went through."""
        for obj in (await self.stage.api.list(DEPLOYMENTS)).items:
            if obj["metadata"]["namespace"] == NS:
                numbers = self.pods.setdefault(obj["metadata"]["name"], [])
                if not numbers or numbers[-1] != obj["spec"]["replicas"]:
                    numbers.append(obj["spec"]["replicas"])

    def comes(self, seconds, source):
        client = Client(self.stage, source)
        self.clients.append(client)
        self.tasks.append(asyncio.create_task(client.run(seconds)))

    async def requests(self):
        """One request after the other from every node."""
        while True:
            for node in NODES:
                try:
                    reader, writer = await ask(self.stage, source=node)
                    head = await reader.readline()
                    writer.close()
                    if b"200" not in head:
                        self.lost.append(f"{node}: {head!r}")
                except OSError as error:
                    self.lost.append(f"{node}: {error}")
            await asyncio.sleep(0.1)

    def judged(self):
        assert [one.cut for one in self.clients if one.cut] == []
        assert self.lost == []


async def deployments(stage):
    return sorted(
        one["metadata"]["name"]
        for one in (await stage.api.list(DEPLOYMENTS)).items
        if one["metadata"]["namespace"] == NS
    )


def test_six_releases_with_websockets_none_is_cut_each_shrinks_as_its_clients_leave_and_is_retired():
    async def story(stage):
        rainbows = Rainbows(stage, cap=6)
        load = asyncio.create_task(rainbows.requests())
        for number in range(2, 7):
            for index, stay in enumerate((100, 150, 240)):
                rainbows.comes(stay, f"node-{index + 1}")
            await asyncio.sleep(1)
            await rainbows.release(f"v{number}")
            await rainbows.current()
        alive = await deployments(stage)
        await asyncio.gather(*rainbows.tasks)
        status = await rainbows.until(lambda status: status.phase == Phase.DONE.value, 300)
        load.cancel()
        return rainbows, alive, status, await deployments(stage)

    rainbows, alive, status, left = play(story, deployment(replicas=2), limit=2000)
    rainbows.judged()
    assert alive == ["echo", "echo-r2", "echo-r3", "echo-r4", "echo-r5", "echo-r6"]
    assert left == ["echo", "echo-r6"] and status.unverified == ()
    assert all(one.heard >= 95 for one in rainbows.clients) and len(rainbows.clients) == 15
    for name in ("echo", "echo-r2", "echo-r3", "echo-r4", "echo-r5"):
        assert rainbows.pods[name] in ([2, 1, 0], [2, 0])
    assert [2, 1, 0] in rainbows.pods.values()
