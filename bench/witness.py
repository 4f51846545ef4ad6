"""Rollouts and single drains on real kernels: every way into a Service under load, every pod watched from below.

The lab's network `kernel`: a namespace per node and pod, rules laid out as kube-proxy 1.36 and 1.30 lay them out, this
machine's netfilter. Clients ask on a new connection each (ClusterIP, NodePort from inside and outside, ClientIP
affinity: 500 a second), on kept connections, and over UDP. Judges: the clients' own count, and a packet capture in each
pod's namespace that has to show no connection begun after its release.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bench.capture import Capture
from bench.figures import Figure, at_least, at_most, counted, holds, lines, percentile
from bench.ground import BenchLab, lab, tidegate
from bench.verbs_ground import Done, Scene, ended
from bench.verbs_objects import of_pods
from bench.witness_load import Traffic, Way, traffic
from tidegate import vtime
from tidegate.lab.control import status_of
from tidegate.lab.network.seam import SHAPES
from tidegate.model.epoch import Epoch
from tidegate.model.names import Ending
from tidegate.rehearse.footage import Focus as Focused
from tidegate.rehearse.footage import Footage, develop
from tidegate.rehearse.loadspec import Source
from tidegate.rehearse.real import RealStage, open_stage
from tidegate.rehearse.stage import Entry

ROLLOUTS, DRAINS = 50, 200
"""Over all shapes together."""
NS, PORT, UDP_PORT = "witness", 8080, 5300
LOOK_SECONDS = 0.05
SETTLE_SECONDS = 1.5
ROLLOUT_SECONDS = 90.0
OVERHEAD_P50_SECONDS = 0.25
SEED = 3

_UDP_POD = f"""
import os, socket, threading
where = (os.environ['POD_IP'], {UDP_PORT})
tcp = socket.create_server(where)
def accept():
    while True:
        tcp.accept()[0].close()
threading.Thread(target=accept, daemon=True).start()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
udp.bind(where)
while True:
    data, asker = udp.recvfrom(2048)
    udp.sendto(data, asker)
"""
"""Answers datagrams; its TCP port is what its startup probe asks."""


@dataclass(slots=True)
class Watched:
    """One pod as the lab's journal and the capture have it."""

    name: str
    node: str
    ip: str
    capture: Capture
    sigterm_at: float = math.inf


@dataclass(slots=True)
class Below:
    """Every pod's capture, taken as pods come."""

    stage: RealStage
    pods: dict[str, Watched] = field(default_factory=dict)
    """By uid."""
    missed: list[str] = field(default_factory=list)
    _read: int = 0

    def look(self) -> None:
        entries = self.stage.journal()
        for entry in entries[self._read :]:
            self._take(entry)
        self._read = len(entries)
        for pod in self.pods.values():
            pod.capture.read()

    def _take(self, entry: Entry) -> None:
        match entry["event"]:
            case "process-started" if entry["namespace"] == NS and entry["uid"] not in self.pods:
                try:
                    capture = Capture.of_process(entry["pid"])
                except OSError as error:
                    self.missed.append(f"{entry['pod']}: {error}")
                    return
                self.pods[entry["uid"]] = Watched(entry["pod"], entry["node"], entry["ip"], capture)
            case "signal-sent" if entry["uid"] in self.pods and "TERM" in str(entry["signal"]):
                pod = self.pods[entry["uid"]]
                pod.sigterm_at = min(pod.sigterm_at, float(entry["at"]))
            case "process-exited" if entry["uid"] in self.pods:
                pod = self.pods[entry["uid"]]
                if pod.capture.dropped:
                    self.missed.append(f"{pod.name}: its capture lost packets")
                pod.capture.close()

    async def keep_looking(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(LOOK_SECONDS)


@dataclass(slots=True)
class Played:
    """What one shape came to."""

    rollouts: list[float] = field(default_factory=list)
    retired: list[Mapping[str, Any]] = field(default_factory=list)
    """The ledger's items."""
    late: list[str] = field(default_factory=list)
    """Connections begun at a pod after it was called verified."""
    overheads: dict[str, list[float]] = field(default_factory=dict)
    """From the floor to the release (the SIGTERM of a gate, the DELETE of a drain by label), by mode; seconds."""
    failed: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)


# --- objects ---


def deployment(name: str, replicas: int, container: dict[str, Any], is_gated: bool) -> dict[str, Any]:
    """Started pods are ready for good: no kubelet asks them anything afterwards, so all that comes is a client's."""
    pod: dict[str, Any] = {"containers": [{"name": name, **container}], "terminationGracePeriodSeconds": 60}
    if is_gated:
        pod["containers"][0]["lifecycle"] = {"preStop": {"httpGet": {"path": f"/gate/{name}", "port": 15299}}}
    return of_pods(name, {"app": name}, replicas, pod)


def service(name: str, app: str, port: int, protocol: str = "TCP", **spec: Any) -> dict[str, Any]:
    ports = [{"name": "main", "port": port, "targetPort": port, "protocol": protocol}]
    spec = {"selector": {"app": app}, "ports": ports, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def objects() -> list[dict[str, Any]]:
    probe = {"httpGet": {"path": "/healthz", "port": PORT}, "periodSeconds": 1, "failureThreshold": 30}
    echo = {
        "image": "tidegate/echo:1",
        "ports": [{"name": "http", "containerPort": PORT}],
        "startupProbe": probe,
        "env": [{"name": "STARTUP_SECONDS", "value": "0.3"}],
    }
    udp = {
        "image": "local/udp",
        "command": ["python3", "-u", "-c", _UDP_POD],
        "ports": [{"name": "udp", "containerPort": UDP_PORT, "protocol": "UDP"}],
        "startupProbe": {"tcpSocket": {"port": UDP_PORT}, "periodSeconds": 1, "failureThreshold": 30},
    }
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NS}},
        deployment("echo", 4, echo, is_gated=True),
        deployment("udp", 3, udp, is_gated=False),
        service("echo", "echo", PORT, type="NodePort"),
        service("sticky", "echo", PORT, sessionAffinity="ClientIP"),
        service("udp", "udp", UDP_PORT, "UDP"),
    ]


async def ways(scene: Scene, stage: RealStage) -> tuple[Way, ...]:
    """500 new connections a second, and requests on kept ones beside them."""
    ip, port, node_port = await scene.address("echo")
    sticky = (await scene.address("sticky"))[0]
    outside = [
        Source(one["name"], address, one["namespace"])
        for one in (await status_of(stage.api))["clients"]  # type: ignore[arg-type]
        for address in one["addresses"]
    ]
    nodes = {one.node: one.address for one in stage.sources}
    return (
        Way("cluster-ip", ip, port, stage.sources, 200.0, 100.0),
        Way("node-port", nodes["node-1"], node_port, stage.sources, 100.0),
        Way("outside", nodes["node-2"], node_port, tuple(outside), 100.0),
        Way("affinity", sticky, port, stage.sources, 100.0),
    )


# --- the story ---


async def rollout(scene: Scene, version: int) -> float:
    """One rolling update to its very end: every old pod gone. Seconds."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    await scene.kubectl("set", "image", "deployment/echo", f"echo=tidegate/echo:{version}")
    async with asyncio.timeout(ROLLOUT_SECONDS):
        while True:
            found = (await scene.get("pods", "-l", "app=echo"))["items"]
            images = [one["spec"]["containers"][0]["image"] for one in found]
            if images == [f"tidegate/echo:{version}"] * 4 and len(await scene.pods("app=echo")) == 4:
                return loop.time() - began
            await asyncio.sleep(0.2)


async def drains(scene: Scene, app: str, replicas: int, count: int, played: Played) -> None:
    """Single drains, one after the other, of a pod drawn at random."""
    rng = random.Random(f"{SEED}/{app}")
    for number in range(count):
        pod = rng.choice(await scene.ready(f"app={app}", replicas, 30.0))
        done = await _ended(scene, "drain", f"pod/{pod}", "--yes", "-o", "json")
        if done.code:
            played.failed.append(f"drain {number} of {app}: exit {done.code}: {done.err.strip().splitlines()[-1:]}")


async def rollouts_and_drains(scene: Scene, rollouts: int, count: int, played: Played) -> None:
    for number in range(rollouts):
        played.rollouts.append(await rollout(scene, number + 2))
    await drains(scene, "echo", 4, count, played)


async def _ended(scene: Scene, *words: str) -> Done:
    return await ended(await scene.start(*words), seconds=180.0)


async def play(one: BenchLab, rollouts: int, count: int) -> tuple[Played, Traffic]:
    """All of it on one lab."""
    played, began_at = Played(), vtime.now().timestamp()
    scene = Scene(one, NS)
    await scene.apply(*objects())
    async with open_stage(one.folder, one.record) as stage:
        below = Below(stage)
        async with looking(below):
            await scene.ready("app=echo", 4, 30.0)
            await scene.ready("app=udp", 3, 30.0)
            await asyncio.sleep(SETTLE_SECONDS)
            udp = await scene.address("udp")
            async with traffic(stage, await ways(scene, stage), udp[:2]) as seen:
                await asyncio.sleep(SETTLE_SECONDS)
                udp_count = count // 4
                await asyncio.gather(
                    rollouts_and_drains(scene, rollouts, count - udp_count, played),
                    drains(scene, "udp", 3, udp_count, played),
                )
                await asyncio.sleep(SETTLE_SECONDS)
        done = await scene.tidegate("ledger", "-o", "json")
        # The ledger outlives labs, and labs of one seed have pods of the same uids.
        items = [item for item in done.document["items"] if _instant(item["at"]) >= began_at]
        played.retired = [item for item in items if item["verb"] in ("gate", "drain")]
        judge(played, below, stage.journal())
    return played, seen


@contextlib.asynccontextmanager
async def looking(below: Below) -> AsyncIterator[None]:
    task = asyncio.create_task(below.keep_looking())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        below.look()


# --- judges ---


def judge(played: Played, below: Below, journal: list[Entry] | Any) -> None:
    played.missed = below.missed
    films = {app: develop(journal, Focused(NS, f"{NS}/{app}:")) for app in ("echo", "udp")}
    for item in played.retired:
        pod = below.pods.get(item["uid"])
        if pod is None:
            played.missed.append(f"{item['pod']}: never seen from below")
            continue
        if item["result"] != Ending.VERIFIED.value:
            continue
        released_at = _instant(item["at"])
        port = UDP_PORT if pod.name.startswith("udp") else PORT
        for segment in pod.capture.opened((port,), released_at):
            late = segment.at - released_at
            played.late.append(f"{pod.name} on {pod.node}: {segment.source} {late:.3f} s after its release")
        played.late += list(_datagrams_after(pod, released_at))
        floor = floor_of(item, pod, films["udp" if port == UDP_PORT else "echo"], port)
        if floor < math.inf:
            mode, ends_at = ("gate", pod.sigterm_at) if item["verb"] == "gate" else ("label", released_at)
            if port == UDP_PORT:  # a flow that the pod's node does not translate counts for 5 s after its last datagram
                mode = "UDP"
            played.overheads.setdefault(mode, []).append(ends_at - floor)


def _datagrams_after(pod: Watched, released_at: float) -> Iterator[str]:
    for one in pod.capture.segments:
        is_question = one.destination.port == UDP_PORT and one.destination.protocol == "UDP" and not one.is_outgoing
        if is_question and one.at > released_at:
            yield f"{pod.name} on {pod.node}: a datagram of {one.source} {one.at - released_at:.3f} s after its release"


def floor_of(item: Mapping[str, Any], pod: Watched, film: Footage, port: int) -> float:
    """The later of: the slowest node's committed table holds the epoch and no route; the last connection closed."""
    if not item["epoch"] or not item["cut"]:
        return math.inf
    wanted = Epoch.parse(item["epoch"])
    cut_at = _instant(item["cut"])
    instants = []
    for node, commits in film.commits.items():
        routed = film.routed(node, f"{pod.ip}:{port}")
        instants += [end for _, end in routed[-1:]]
        fenced = (one.at for one in commits if one.epoch is not None and one.epoch.reaches(wanted))
        instants.append(next(fenced, math.inf))
    closed = (one.at for one in pod.capture.segments if one.is_closing and cut_at <= one.at <= pod.sigterm_at)
    return max([*instants, *closed], default=math.inf)


def _instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


# --- figures ---


def figures_of(shape: str, played: Played, seen: Traffic) -> list[Figure]:
    results = [item["result"] for item in played.retired]
    gates = [item for item in played.retired if item["verb"] == "gate"]
    verified = results.count(Ending.VERIFIED.value)
    lost = seen.lost
    udp = seen.datagrams
    problems = "; ".join([*played.missed, *played.failed][:3])
    after = "connections and datagrams at a pod after its release"
    figures = [
        at_most(f"{shape}: requests lost", len(lost), "", 0, f"of {seen.sent:,}; UDP {len(udp.lost)} of {udp.asked:,}"),
        at_least(
            f"{shape}: drains verified", verified, "", len(results), f"{counted(results)}; {len(gates)} by rollouts"
        ),
        at_most(f"{shape}: {after}", len(played.late), "", 0, "by packet capture, of the verified"),
        holds(f"{shape}: every pod was watched and every command ended well", not problems, problems),
        Figure(
            f"{shape}: a rollout of 4 pods, p50", percentile(played.rollouts, 0.5), "s", note=f"{len(played.rollouts)}"
        ),
        at_most(f"{shape}: clients late by 100 ms", seen.late_fraction * 100, "%", 5.0, "else too busy to judge"),
    ]
    for mode, overheads in sorted(played.overheads.items()):
        note = f"{len(overheads)} drains; p95 {percentile(overheads, 0.95):.3f} s"
        name = f"{shape}: {mode} drain above its floor, p50"
        middle = percentile(overheads, 0.5)
        is_bound = mode != "UDP"
        most = OVERHEAD_P50_SECONDS
        figures.append(at_most(name, middle, "s", most, note) if is_bound else Figure(name, middle, "s", note=note))
    for line in [*lost[:5], *played.late[:5]]:
        print(f"  {shape}: {line}")
    return figures


def side_by_side() -> list[Figure]:
    """The demo's rows on this network: what guessing costs there."""
    done = tidegate("demo", "--network", "kernel", "-o", "json", seconds=280.0)
    try:
        runs = json.loads(done.stdout)["runs"]
    except ValueError:
        return [holds("the demo on this network", False, done.stderr.strip()[-200:])]
    figures = []
    for run in runs:
        name = f"demo, {run['name']}: requests dropped"
        note = f"of {run['requests']:,}; rollout {run['rollout_seconds']} s, drain p50 {run['drain_seconds']['p50']} s"
        note += f"; {run['dropped_by_cause']}" if run["dropped"] else ""
        note += f"; INVALID: {run['invalid']}" if run.get("invalid") else ""
        is_ours = run["name"].startswith("tidegate")
        dropped = float(run["dropped"])
        figures.append(at_most(name, dropped, "", 0, note) if is_ours else Figure(name, dropped, "", note=note))
    return figures


def run(count: int = DRAINS) -> list[Figure]:
    """``count`` single drains and a quarter as many rollouts, shared out to the shapes."""
    figures: list[Figure] = []
    for shape in SHAPES:
        with lab(f"witness-{shape.replace('.', '-')}", "--network", "kernel", "--proxy", shape) as one:
            drained = math.ceil(count / len(SHAPES))
            rolled = math.ceil(count * ROLLOUTS / DRAINS / len(SHAPES))
            found = figures_of(shape, *asyncio.run(play(one, rolled, drained)))
        print("\n".join(lines(f"{shape}:", found)), flush=True)  # each takes some ten minutes, and may be stopped
        figures += found
    return figures + side_by_side()
