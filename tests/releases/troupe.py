"""What stories of releases share: an engine on the stage, clients that count what they lose, and the look of the end."""

from __future__ import annotations

import asyncio
import contextlib

from scene import NODES, ask
from stage import NS

from tidegate.client.options import Identity
from tidegate.client.release.acts import Ground
from tidegate.client.release.book import ConfigMapBook
from tidegate.client.release.endings import Endings
from tidegate.client.release.run import Engine
from tidegate.kube.api import PODS, Selection
from tidegate.kube.reflector import Reflector
from tidegate.release.spec import Spec
from tidegate.vtime import Nursery


class Requests:
    """One request after the other from every node, each on a new connection; what had no whole answer is lost."""

    def __init__(self, stage, service="echo", pause=0.02):
        self.stage, self.service, self.pause = stage, service, pause
        self.sent, self.lost = 0, []

    async def _from(self, node):
        while True:
            self.sent += 1
            try:
                async with asyncio.timeout(20):
                    reader, writer = await ask(self.stage, source=node, service=self.service)
                    whole = await reader.read()
                    writer.close()
                if b" 200 " not in whole.partition(b"\r\n")[0]:
                    self.lost.append((node, whole[:40]))
            except (OSError, TimeoutError) as error:
                self.lost.append((node, repr(error)))
            await asyncio.sleep(self.pause)


@contextlib.asynccontextmanager
async def requests(stage, service="echo", pause=0.02):
    """Clients on every node for as long as the block lasts."""
    made = Requests(stage, service, pause)
    tasks = [asyncio.create_task(made._from(node)) for node in sorted(NODES)]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def engine(stage, spec: Spec, holder="engine-1", seed=1):
    """A release written down, and an engine beside a watch of pods."""
    book = ConfigMapBook(stage.client, NS, spec.workload)
    found = await book.read()
    if found is None:
        await book.begin(spec)
    elif found.spec != spec:
        await book.ask(found, spec)
    async with at_work(stage, spec.workload, holder, seed) as made:
        yield made, book


@contextlib.asynccontextmanager
async def at_work(stage, workload, holder="engine-1", seed=1):
    """Another engine on what is written."""
    endings = Endings()
    watch = Reflector(stage.client, PODS, Selection(NS))
    watch.subscribe(endings.saw)
    ground = Ground(stage.client, Identity("tester@here", holder), seed=seed)
    async with Nursery() as nursery:
        nursery.start(watch.run(), name="watch pods")
        await watch.synced()
        yield Engine(ConfigMapBook(stage.client, NS, workload), ground, endings=endings)
        nursery.cancel()
