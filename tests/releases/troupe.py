"""What stories of releases share: an engine on the stage, clients that count what they lose, a look at the end."""

from __future__ import annotations

import asyncio
import contextlib
import json

import msgspec
from scene import NODES, ask
from stage import NS

from tidegate.client.options import Identity
from tidegate.client.release.book import ConfigMapBook
from tidegate.client.release.endings import Endings
from tidegate.client.release.ground import Ground
from tidegate.client.release.run import Engine
from tidegate.engine.ledger import Ledger, Read
from tidegate.kube.api import ENDPOINTSLICES, HORIZONTALPODAUTOSCALERS, PODS, Patch, Selection
from tidegate.kube.errors import ApiError
from tidegate.kube.reflector import Reflector
from tidegate.release.spec import BlueGreen, Canary, CanaryStep, Rainbow, Spec
from tidegate.vtime import Nursery


class Lost(Exception):
    """What came back is no whole answer."""


async def answered(stage, node, service):
    """The version that answers one request, on a new connection. Raises ``Lost``, ``OSError``, ``TimeoutError``."""
    async with asyncio.timeout(20):
        reader, writer = await ask(stage, source=node, service=service)
        whole = await reader.read()
        writer.close()
    if b" 200 " not in whole.partition(b"\r\n")[0]:
        raise Lost(whole[:40])
    return json.loads(whole.partition(b"\r\n\r\n")[2])["version"]


class Requests:
    """One request after the other from every node, each on a new connection; what had no whole answer is lost."""

    def __init__(self, stage, service="echo", pause=0.02):
        self.stage, self.service, self.pause = stage, service, pause
        self.sent, self.lost = 0, []
        self.versions = set()
        """What answered."""

    async def _from(self, node):
        while True:
            self.sent += 1
            try:
                self.versions.add(await answered(self.stage, node, self.service))
            except (Lost, OSError, TimeoutError) as error:
                self.lost.append((node, repr(error)))
            await asyncio.sleep(self.pause)


@contextlib.asynccontextmanager
async def requests(stage, service="echo", pause=0.02):
    """Clients on every node for as long as the block lasts."""
    made = Requests(stage, service, pause)
    async with doing(made._from(node) for node in sorted(NODES)):
        yield made


@contextlib.asynccontextmanager
async def doing(stories):
    """All of them, for as long as the block lasts."""
    tasks = [asyncio.create_task(one) for one in stories]
    try:
        yield
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


class File(Ledger):
    """The ledger of one machine: what is written stays, whoever is killed."""

    def __init__(self):
        super().__init__()
        self.entries = []

    def write(self, entry):
        self.entries.append(entry)

    def read(self):
        return Read(tuple(self.entries))


@contextlib.asynccontextmanager
async def at_work(stage, workload, holder="engine-1", seed=1, client=None):
    """Another engine on what is written; ``client`` is its way to the API. Whoever was there before is dead."""
    client = client or stage.client
    endings = Endings()
    watch = Reflector(client, PODS, Selection(NS))
    watch.subscribe(endings.saw)
    if not hasattr(stage, "ledger"):
        stage.ledger = File()
    ground = Ground(client, Identity("tester@here", holder, lambda other: False), stage.ledger, seed)
    async with Nursery() as nursery:
        nursery.start(watch.run(), name="watch pods")
        await watch.synced()
        yield Engine(ConfigMapBook(client, NS, workload), ground, endings=endings)
        nursery.cancel()


V2 = {"echo": "tidegate/echo:v2"}
V3 = {"echo": "tidegate/echo:v3"}
BAD = {"echo": "nowhere/echo:v9"}

SPECS = {
    "rolling": Spec("echo", images=V2, progress_seconds=60),
    "bluegreen": Spec(
        "echo", "bluegreen", images=V2, progress_seconds=60, bluegreen=BlueGreen(service="echo", keep_seconds=3.0)
    ),
    "canary": Spec(
        "echo",
        "canary",
        images=V2,
        progress_seconds=60,
        canary=Canary(service="echo", steps=(CanaryStep(34, 2.0), CanaryStep(100, 1.0))),
    ),
    "rainbow": Spec(
        "echo", "rainbow", images=V2, progress_seconds=60, rainbow=Rainbow(service="echo", retire_seconds=3.0)
    ),
}
"""One release by each strategy, of the stage's Deployment and Service."""


async def ask_for(book, **changes):
    """Somebody asks for something else of the release."""
    for _ in range(20):
        found = await book.read()
        try:
            return await book.ask(found, msgspec.structs.replace(found.spec, **changes))
        except ApiError as error:
            assert error.is_conflict, error
    raise AssertionError("the release changes too often")


async def at_rest(made, book, phases=("done",), within=300.0):
    """Turn until the release of the newest spec is in one of ``phases``, and all its pods have ended."""
    loop = asyncio.get_running_loop()
    until = loop.time() + within
    while loop.time() < until:
        await made.run(until - loop.time())
        entry = await book.read()
        if entry.status.generation == entry.generation and entry.status.phase in phases:
            return entry.status
        await asyncio.sleep(0.5)
    entry = await book.read()
    raise AssertionError(f"{entry.status.phase}: {entry.status.reason} {made.failures}")


async def resting(made, book, phase, within=300.0):
    """Turn until the release rests in ``phase``."""
    until = asyncio.get_running_loop().time() + within
    while asyncio.get_running_loop().time() < until:
        status = await made.run(until - asyncio.get_running_loop().time())
        if status.phase == phase:
            return (await book.read()).status
        await asyncio.sleep(0.5)
    raise AssertionError(f"{status.phase}: {status.reason} {made.failures}")


async def serving(stage, service="echo"):
    """Images of the pods that the Service's slices list as ready."""
    slices = (await stage.api.list(ENDPOINTSLICES, Selection(NS, f"kubernetes.io/service-name={service}"))).items
    names = {
        one["targetRef"]["name"]
        for obj in slices
        for one in obj.get("endpoints") or ()
        if one["conditions"].get("ready") and not one["conditions"].get("terminating")
    }
    return {
        pod["spec"]["containers"][0]["image"].rpartition(":")[2]
        for pod in (await stage.api.list(PODS, Selection(NS))).items
        if pod["metadata"]["name"] in names
    }


AUTOSCALER = {
    "apiVersion": "autoscaling/v2",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "echo", "namespace": NS, "annotations": {"lab.tidegate.dev/load": "300"}},
    "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "echo"},
        "minReplicas": 2,
        "maxReplicas": 12,
        "metrics": [
            {
                "type": "Pods",
                "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "100"}},
            }
        ],
    },
}
"""One that wants a load of 100 on each pod; ``loaded`` sets how much there is."""


async def loaded(stage, amount):
    """The load on the workload that the autoscaler is of, until it has looked twice."""
    body = {"metadata": {"annotations": {"lab.tidegate.dev/load": str(amount)}}}
    await stage.api.patch(HORIZONTALPODAUTOSCALERS, "echo", Patch(body), NS)
    await asyncio.sleep(32)
