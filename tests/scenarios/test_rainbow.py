"""Rainbow releases in a virtual lab: WebSocket clients that stay for minutes, a work queue, six releases beside each
other, the ten pods of the long story."""

from __future__ import annotations

import asyncio
import contextlib

from scene import NODES, ask, play
from stage import NS, SERVICE, deployment, first, node_of

from tidegate.client.release.book import ConfigMapBook
from tidegate.client.release.command import About, ReleaseOptions, carry_on, changed, plan_release, sight_of
from tidegate.client.release.document import document
from tidegate.dataplane.facts import Unreadable
from tidegate.dataplane.sockets import Quiet
from tidegate.kube.api import DEPLOYMENTS, HORIZONTALPODAUTOSCALERS, PODS, SERVICES
from tidegate.kube.errors import ApiError
from tidegate.observers.proxied import ProxiedAgents
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
        """Ask for it (``tag`` of the echo image, or a whole image); the engine at work carries it."""
        spec = Spec(
            "echo",
            "rainbow",
            images={"echo": tag if "/" in tag else f"tidegate/echo:{tag}"},
            rainbow=Rainbow(**{"service": "echo", "idle_seconds": 3.0, "retire_seconds": 15.0, **self.rainbow}),
            **fields,
        )
        entry = await self.book.read()
        if entry is None:
            await self.book.begin(spec)
        else:
            await self.book.ask(entry, spec)
        if self.engine is None:
            self.engine = asyncio.create_task(self.carry())

    async def carry(self):
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


def test_with_cap_3_the_fourth_is_refused_with_a_reason_and_begins_when_one_has_drained():
    async def story(stage):
        rainbows = Rainbows(stage, cap=3)
        load = asyncio.create_task(rainbows.requests())
        for number, stay in ((2, 60), (3, 120)):
            rainbows.comes(stay, "node-1")
            rainbows.comes(stay, "node-2")
            await asyncio.sleep(1)
            await rainbows.release(f"v{number}")
            await rainbows.current()
        await rainbows.release("v4")
        refused = await rainbows.until(lambda status: status.phase == Phase.PENDING.value)
        names, at = await deployments(stage), stage.now
        await rainbows.current()
        seconds = stage.now - at
        await asyncio.gather(*rainbows.tasks)
        await rainbows.until(lambda status: status.phase == Phase.DONE.value)
        load.cancel()
        return rainbows, refused, names, seconds, await deployments(stage)

    rainbows, refused, names, seconds, left = play(story, deployment(replicas=2), limit=2000)
    rainbows.judged()
    assert refused.reason.startswith("at most 3 revisions may live at once, and 3 do: r1 (")
    assert "connections), r2 (" in refused.reason and "r3 (serves); r4 begins when one has drained" in refused.reason
    assert names == ["echo", "echo-r2", "echo-r3"] and left == ["echo", "echo-r4"]
    assert 30 < seconds < 70, "not before the clients of r1 had left"


QUEUE = 'metric:8080/metrics#echo_queue{revision="{revision}"}'


async def queue(stage, revision, length):
    """What a broker says, by the mouth of every pod."""
    for obj in await stage.pods():
        ip = obj["status"]["podIP"]
        reader, writer = await asyncio.open_connection(ip, 8080)
        path = f"/queue?revision={revision}&length={length}"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert b"200" in await reader.readline()
        writer.close()


def test_a_drained_release_that_gets_work_again_is_revived_and_goes_when_it_has_done_it():
    async def story(stage):
        rainbows = Rainbows(stage, cap=6, activity=QUEUE, retire_seconds=40.0)
        await rainbows.release("v2")
        await rainbows.current()
        await rainbows.until(lambda status: "its work is not known" in status.reason)
        await asyncio.sleep(30)
        unknown = await numbers(stage)
        await queue(stage, "r1", 0)
        await rainbows.release("v3")
        await rainbows.current()
        for revision in ("r1", "r2"):
            await queue(stage, revision, 0)
        await drained(stage, "echo-r2")
        await asyncio.sleep(20)
        await queue(stage, "r2", 5)
        await asyncio.sleep(20)
        revived = await numbers(stage)
        await asyncio.sleep(60)
        working = await numbers(stage)
        await queue(stage, "r2", 0)
        await drained(stage, "echo-r2")
        await rainbows.until(lambda status: status.phase == Phase.DONE.value)
        return unknown, revived, working, await numbers(stage), (await rainbows.status()).notes

    unknown, revived, working, left, notes = play(story, deployment(replicas=2), limit=2000)
    assert unknown == {"echo": 2, "echo-r2": 2}, "what cannot be read is kept"
    assert revived == working == {"echo": 0, "echo-r2": 2, "echo-r3": 2}
    assert left == {"echo": 0, "echo-r3": 2}
    assert "scale r2 to 2: 5 to do that only r2 can: it has pods for it again" in [note.text for note in notes]


async def numbers(stage):
    found = (await stage.api.list(DEPLOYMENTS)).items
    return {o["metadata"]["name"]: o["spec"]["replicas"] for o in found if o["metadata"]["namespace"] == NS}


async def drained(stage, name, within=100.0):
    end = stage.now + within
    while (await numbers(stage))[name]:
        assert stage.now < end, await numbers(stage)
        await asyncio.sleep(0.5)


def test_a_pod_that_works_for_nobody_connected_is_kept_by_its_own_word():
    async def story(stage):
        rainbows = Rainbows(stage, cap=6, activity="http:8080/activity")
        name = await first(stage)
        obj = await stage.api.get(PODS, name, NS)
        reader, writer = await asyncio.open_connection(obj["status"]["podIP"], 8080)
        writer.write(b"GET /work?seconds=120 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"202" in await reader.readline()
        writer.close()
        at = stage.now
        await rainbows.release("v2")
        await rainbows.current()
        await asyncio.sleep(40)
        midst = [pod["metadata"]["name"] for pod in await stage.pods() if "-r2-" not in pod["metadata"]["name"]]
        await rainbows.until(lambda status: status.phase == Phase.DONE.value)
        return name, midst, stage.now - at

    name, midst, seconds = play(story, deployment(replicas=3), limit=2000)
    assert midst == [name] and seconds > 120


def test_pods_without_a_gate_keep_their_clients_and_go_one_by_one_when_they_are_idle():
    async def story(stage):
        rainbows = Rainbows(stage, cap=6)
        load = asyncio.create_task(rainbows.requests())
        for source, stay in (("node-1", 60), ("node-2", 60), ("node-3", 100)):
            rainbows.comes(stay, source)
        await asyncio.sleep(1)
        await rainbows.release("v2")
        await rainbows.current()
        await asyncio.gather(*rainbows.tasks)
        status = await rainbows.until(lambda status: status.phase == Phase.DONE.value)
        load.cancel()
        return rainbows, status

    rainbows, status = play(story, deployment(replicas=2, gate=False), limit=2000)
    rainbows.judged()
    assert status.unverified == () and rainbows.pods["echo"][-1] == 0


def test_a_node_whose_sockets_cannot_be_read_keeps_its_pods_by_name(monkeypatch):
    blind = []
    read = ProxiedAgents.connections

    async def connections(self, node, endpoints):
        if node in blind:
            return Quiet(unreadable=(Unreadable("no answer", node),))
        return await read(self, node, endpoints)

    monkeypatch.setattr(ProxiedAgents, "connections", connections)

    async def story(stage):
        rainbows = Rainbows(stage, cap=6)
        name = await first(stage)
        blind.append(await node_of(stage, name))
        await rainbows.release("v2")
        await rainbows.current()
        await asyncio.sleep(60)
        midst, left = await rainbows.status(), await numbers(stage)
        blind.clear()
        await rainbows.until(lambda status: status.phase == Phase.DONE.value)
        return name, midst, left

    name, status, left = play(story, deployment(replicas=3), limit=2000)
    assert status.phase == Phase.PROGRESSING.value and f"not known at {name}" in status.reason
    assert left == {"echo": 1, "echo-r2": 3}


def test_a_version_that_never_is_ready_gets_no_traffic_and_what_drains_goes_on():
    async def story(stage):
        rainbows = Rainbows(stage, cap=6)
        load = asyncio.create_task(rainbows.requests())
        rainbows.comes(40, "node-1")
        await asyncio.sleep(1)
        await rainbows.release("v2")
        await rainbows.current()
        await rainbows.release("nowhere/echo:v3", progress_seconds=20.0)
        halted = await rainbows.until(lambda status: status.phase == Phase.HALTED.value)
        await drained(stage, "echo")
        entry = await rainbows.book.read()
        await rainbows.book.ask(entry, changed(entry, "abort"))
        status = await rainbows.until(lambda status: status.phase == Phase.ABORTED.value)
        load.cancel()
        return rainbows, halted, status, await numbers(stage)

    rainbows, halted, status, left = play(story, deployment(replicas=2), limit=2000)
    rainbows.judged()
    assert halted.reason.startswith("no progress for 20 s: pod/echo-r3-") and "traffic stays on r2" in halted.reason
    assert status.stable == "r2" and left == {"echo": 0, "echo-r2": 2}


def test_killed_after_any_write_another_engine_goes_on_and_nobody_is_cut():
    async def story(stage):
        rainbows = Rainbows(stage, cap=6)
        load = asyncio.create_task(rainbows.requests())
        for source in NODES:
            rainbows.comes(50, source)
        await asyncio.sleep(1)
        await rainbows.release("v2")
        kills = 0
        while (await rainbows.status()).phase != Phase.DONE.value:
            await asyncio.sleep(0.8 + 0.37 * (kills % 5))
            if kills < 40:
                rainbows.engine.cancel()
                rainbows.engine = asyncio.create_task(rainbows.carry())
            kills += 1
            assert kills < 400, (await rainbows.status()).reason
        load.cancel()
        return rainbows, await numbers(stage)

    rainbows, left = play(story, deployment(replicas=2), limit=2000)
    rainbows.judged()
    assert left == {"echo": 0, "echo-r2": 2}


def test_back_to_a_revision_that_lives_is_one_flip_and_a_third_in_between_drains():
    async def story(stage):
        rainbows = Rainbows(stage, cap=6)
        load = asyncio.create_task(rainbows.requests())
        for source in NODES:
            rainbows.comes(100, source)
        await asyncio.sleep(1)
        await rainbows.release("v2")
        await rainbows.until(lambda status: status.step == 1)
        rainbows.comes(60, "node-1")
        await rainbows.release("v3")
        await rainbows.current()
        at, before = stage.now, {pod["metadata"]["name"] for pod in await stage.pods()}
        entry = await rainbows.book.read()
        await rainbows.book.ask(entry, changed(entry, "rollback", "r1"))
        await rainbows.current()
        seconds, after = stage.now - at, {pod["metadata"]["name"] for pod in await stage.pods()}
        await asyncio.gather(*rainbows.tasks)
        await rainbows.until(lambda status: status.phase == Phase.DONE.value)
        load.cancel()
        return rainbows, seconds, after - before, await numbers(stage)

    rainbows, seconds, made, left = play(story, deployment(replicas=2), limit=2000)
    rainbows.judged()
    assert seconds < 6 and made == set(), "nothing had to be made for it"
    assert left == {"echo": 2}


HPA = {
    "apiVersion": "autoscaling/v2",
    "kind": "HorizontalPodAutoscaler",
    "metadata": {"name": "echo", "namespace": NS},
    "spec": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "echo"},
        "minReplicas": 2,
        "maxReplicas": 5,
    },
}


def test_the_autoscaler_goes_on_with_the_one_that_serves_and_does_not_fight_for_the_other():
    async def story(stage):
        await stage.api.create(HORIZONTALPODAUTOSCALERS, HPA)
        rainbows = Rainbows(stage, cap=6)
        load = asyncio.create_task(rainbows.requests())
        rainbows.comes(60, "node-1")
        await asyncio.sleep(1)
        await rainbows.release("v2")
        await rainbows.current()
        await asyncio.gather(*rainbows.tasks)
        await rainbows.until(lambda status: status.phase == Phase.DONE.value)
        load.cancel()
        hpa = await stage.api.get(HORIZONTALPODAUTOSCALERS, "echo", NS)
        return rainbows, hpa["spec"]["scaleTargetRef"]["name"]

    rainbows, target = play(story, deployment(replicas=3), limit=2000)
    rainbows.judged()
    assert target == "echo-r2"
    assert rainbows.pods["echo"] in ([3, 1, 0], [3, 2, 1, 0], [3, 2, 0]), "nobody scaled it up again"


def test_status_tells_the_connections_of_those_that_drain_whoever_asks():
    async def story(stage):
        rainbows = Rainbows(stage, cap=6)
        for source in NODES:
            rainbows.comes(60, source)
        await asyncio.sleep(1)
        await rainbows.release("v2")
        await rainbows.current()
        await asyncio.sleep(10)
        sight = await sight_of(stage.client, rainbows.book, About(NS, "echo"))
        return {one["revision"]: (one["connections"], one["unknown"]) for one in document(sight)["revisions"]}

    assert play(story, deployment(replicas=2)) == {"r1": (3, []), "r2": (0, [])}


def test_a_queue_without_a_service_is_released_by_its_length_alone():
    async def story(stage):
        await stage.api.delete(SERVICES, "echo", NS)
        await asyncio.sleep(3)
        rainbows = Rainbows(stage, cap=6, service="", activity=QUEUE)
        await queue(stage, "r1", 3)
        await rainbows.release("v2")
        await rainbows.current()
        await queue(stage, "r1", 3)
        await asyncio.sleep(30)
        working = await numbers(stage)
        await queue(stage, "r1", 0)
        status = await rainbows.until(lambda status: status.phase == Phase.DONE.value)
        return working, await numbers(stage), [note.text for note in status.notes]

    working, left, notes = play(story, deployment(replicas=2), limit=2000)
    assert working == {"echo": 2, "echo-r2": 2} and left == {"echo": 0, "echo-r2": 2}
    assert not [text for text in notes if text.startswith(("ask", "retarget", "label", "expose"))]


def test_where_services_select_the_pods_one_of_them_has_to_be_named():
    async def story(stage):
        spec = Spec("echo", "rainbow", images={"echo": "tidegate/echo:v2"})
        book = ConfigMapBook(stage.client, NS, "echo")
        one = await plan_release(stage.client, book, NS, spec)
        other = {"metadata": {"name": "other", "namespace": NS}, "spec": SERVICE["spec"]}
        await stage.api.create(SERVICES, {"apiVersion": "v1", "kind": "Service", **other})
        two = await plan_release(stage.client, book, NS, spec)
        for name in ("echo", "other"):
            await stage.api.delete(SERVICES, name, NS)
        none = await plan_release(stage.client, book, NS, spec)
        return one, two, none

    one, two, none = play(story, deployment(replicas=2))
    assert one.refusals == ("rainbow moves a Service, and of its pods' echo none is named: --service does",)
    assert two.refusals == ("rainbow moves a Service, and of its pods' echo, other none is named: --service does",)
    assert (none.spec.service, none.refusals) == ("", ())
