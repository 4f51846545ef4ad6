"""What the revisions that drain still do: connections by the sockets of their nodes, work by the workload's own word.

One question per node for all pods on it. What cannot be read is unknown, and what is unknown is kept. Revisions that
serve are not asked: nothing is decided by how many connections they have, and they may have very many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from tidegate.client.release.look import Sight
from tidegate.dataplane.facts import Unreadable
from tidegate.dataplane.sockets import NO_INBOUND, Quiet
from tidegate.kube.api import JsonObject
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import KubeError
from tidegate.model import activity as probes
from tidegate.model.activity import PLACE, Activity
from tidegate.model.endpoint import Endpoint
from tidegate.model.names import ACTIVITY, WORK
from tidegate.model.pod import Pod
from tidegate.observers.activity import ActivityProbe, AgentActivity, ProxiedActivity
from tidegate.observers.proxied import ProxiedAgents, is_installed
from tidegate.release import rainbow
from tidegate.release.scene import Edition, Scene

READ_SECONDS = 2.0
ANSWER_SECONDS = 5.0
"""A node that is slower than that is unknown this time."""
AGAIN_SECONDS_MAX = 10.0
ENDPOINTS_MAX = 64
"""Of one question to an agent (``agent.questions``)."""
TRIED_MAX = 3
"""Pods that are asked for work that any of them can tell of, one after the other."""


class Work:
    """Reads it, and keeps each answer for ``READ_SECONDS``; who was busy is asked again after an eighth of the time
    that it has been."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._agents = ProxiedAgents(client)
        self._read_at: dict[str, float] = {}
        self._busy_since: dict[str, float] = {}
        self._counts: dict[str, int | None] = {}
        self._shared: dict[str, int | None] = {}

    async def seen(self, sight: Sight) -> Scene:
        """The scene with the work of whatever drains. Never raises: what cannot be read is None."""
        scene = sight.scene
        if scene.spec.strategy != "rainbow" or not scene.editions:
            return scene
        names = [one.revision for one in rainbow.draining(scene)]
        old = [one for one in scene.editions if one.revision in names]
        await self._refresh(sight, old)
        return replace(scene, editions=tuple(self._edition(sight, one, names) for one in scene.editions))

    async def connections(self, sight: Sight, pods: Iterable[Pod]) -> dict[str, int | None]:
        """Pod's uid -> what is in flight at it now, None where that cannot be told; nothing kept is used."""
        asked = list(pods)
        found = await self._counted(sight, asked, await _has_agents(self._client))
        return {one.uid: found.get(one.uid) for one in asked}

    def _edition(self, sight: Sight, edition: Edition, names: list[str]) -> Edition:
        scene, pods = sight.scene, sight.pods_of.get(edition.revision, [])
        activity = scene.spec.rainbow.activity
        if edition.revision not in names:
            shared = activity if PLACE in activity and probes.parse(activity).kind != "exec" else ""
            tells = {one.uid: not shared or one.annotations.get(WORK) == shared for one in pods}
            members = tuple(
                replace(one, connections=None, is_probed=tells.get(one.uid, True)) for one in edition.members
            )
            return replace(edition, members=members)
        own = _own(scene)
        needs = own.text if own is not None and own.kind != "exec" else ""
        bears = {one.uid: not needs or one.annotations.get(ACTIVITY) == needs for one in pods}
        members = tuple(
            replace(one, connections=self._counts.get(one.uid), is_probed=bears.get(one.uid, True))
            for one in edition.members
        )
        work = self._shared.get(edition.revision) if PLACE in activity else None
        return replace(edition, members=members, work=work)

    # --- when ---

    async def _refresh(self, sight: Sight, old: list[Edition]) -> None:
        now = asyncio.get_running_loop().time()
        pods = [one for edition in old for one in sight.pods_of.get(edition.revision, [])]
        due = [one for one in pods if self._is_due(one.uid, now)]
        shared = [one.revision for one in old if self._is_due(f"work/{one.revision}", now)]
        known = {one.uid for one in pods}
        self._counts = {uid: count for uid, count in self._counts.items() if uid in known}
        if PLACE in sight.scene.spec.rainbow.activity:
            for revision in shared:
                self._shared[revision] = await self._work_of(sight, revision)
                self._note(f"work/{revision}", now, self._shared[revision] == 0)
        if due:
            found = await self._counted(sight, due, await _has_agents(self._client))
            for one in due:
                self._counts[one.uid] = found.get(one.uid)
                self._note(one.uid, now, found.get(one.uid) == 0)

    def _is_due(self, key: str, now: float) -> bool:
        if key not in self._read_at:
            return True
        waited = self._read_at[key] - self._busy_since.get(key, self._read_at[key])
        return now - self._read_at[key] >= max(READ_SECONDS, min(waited / 8, AGAIN_SECONDS_MAX))

    def _note(self, key: str, now: float, is_idle: bool) -> None:
        self._read_at[key] = now
        if is_idle:
            self._busy_since.pop(key, None)
        else:
            self._busy_since.setdefault(key, now)

    # --- pods ---

    async def _counted(self, sight: Sight, pods: list[Pod], has_agents: bool) -> dict[str, int | None]:
        """Sockets first, then the workload: what came in before the first look is work at the second."""
        activity = _own(sight.scene)
        if has_agents:
            found = await self._by_sockets(sight, pods)
        else:  # nobody can read sockets; where the workload says itself what it does, nothing waits for them
            found = dict.fromkeys((one.uid for one in pods), 0 if sight.scene.spec.rainbow.activity else None)
        if activity is None:
            return found
        idle = [one for one in pods if found.get(one.uid) == 0 and one.ips]
        told = await asyncio.gather(*(self._told(one, activity, has_agents) for one in idle))
        return {**found, **{one.uid: count for one, count in zip(idle, told, strict=True)}}

    async def _told(self, pod: Pod, activity: Activity, has_agents: bool) -> int | None:
        probe: ActivityProbe = ProxiedActivity(self._client, pod, activity)
        if has_agents and activity.kind != "exec":
            if pod.annotations.get(ACTIVITY) != activity.text:
                return None  # the agent reads it there; it is put on the pod first
            probe = AgentActivity(self._agents, pod, activity)
        answer = await probe.ask()
        return None if answer.is_idle is None else int(not answer.is_idle)

    async def _by_sockets(self, sight: Sight, pods: list[Pod]) -> dict[str, int | None]:
        nodes: dict[str, list[Pod]] = {}
        for one in pods:
            nodes.setdefault(one.node, []).append(one)
        counted = await asyncio.gather(*(self._on_node(sight, node, nodes[node]) for node in sorted(nodes)))
        return {uid: count for one in counted for uid, count in one.items()}

    async def _on_node(self, sight: Sight, node: str, pods: list[Pod]) -> dict[str, int | None]:
        asked = [(one, endpoints_of(sight, one)) for one in pods]
        found: dict[str, int | None] = {one.uid: 0 for one, at in asked if not at}  # no address: nobody ever got there
        rest = [(one, at) for one, at in asked if at]
        whole = [(one, at) for one, at in rest if all(endpoint.port for endpoint in at)]
        for some in _chunks(whole):
            quiet = await self._ask(node, tuple(endpoint for _, at in some for endpoint in at))
            if not quiet.unreadable:
                found |= {one.uid: _count(quiet, at) for one, at in some}
        for one, at in rest:
            if one.uid not in found:
                found[one.uid] = await self._alone(sight, one, at)
        return found

    async def _alone(self, sight: Sight, pod: Pod, at: tuple[Endpoint, ...]) -> int | None:
        """One pod, where the answer for all of its node could not be had."""
        quiet = await self._ask(pod.node, at)
        if (quiet.is_deaf or quiet.is_nowhere) and never_served(sight.pods[pod.name]):
            return 0  # no process has its address: nothing in it can have accepted a connection
        has_word = bool(sight.scene.spec.rainbow.activity)
        if quiet.unreadable or (NO_INBOUND in quiet.doubts and not has_word):
            return None
        return len(quiet.live)

    async def _ask(self, node: str, endpoints: tuple[Endpoint, ...]) -> Quiet:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                return await self._agents.connections(node, endpoints)
        except TimeoutError:
            return Quiet(unreadable=(Unreadable("no answer in time", f"connections on {node}"),))

    # --- work that any pod can tell of ---

    async def _work_of(self, sight: Sight, revision: str) -> int | None:
        """By the newest revision that has a ready pod: an API server keeps its connection to whom it asked for us, and
        one that drains would never be quiet. Where there are agents, these ask; a command only we can run."""
        text = sight.scene.spec.rainbow.activity
        activity = probes.parse(text.replace(PLACE, revision))
        has_agents = activity.kind != "exec" and await _has_agents(self._client)
        pods = [
            one
            for edition in reversed(sight.scene.editions)
            for one in sight.pods_of.get(edition.revision, [])
            if one.is_ready and not one.is_terminating and (not has_agents or one.annotations.get(WORK) == text)
        ]
        for one in pods[:TRIED_MAX]:
            probe: ActivityProbe = ProxiedActivity(self._client, one, activity)
            if has_agents:
                probe = AgentActivity(self._agents, one, activity, revision)
            answer = await probe.ask()
            if answer.is_idle is not None:
                return 0 if answer.is_idle else max(int(answer.amount or 1), 1)
        return None


def _own(scene: Scene) -> Activity | None:
    """The probe that each pod is asked by, None without one."""
    text = scene.spec.rainbow.activity
    return probes.parse(text) if text and PLACE not in text else None


async def _has_agents(client: KubeClient) -> bool:
    try:
        return await is_installed(client)
    except KubeError:
        return True  # then nobody answers, and nothing is known


def endpoints_of(sight: Sight, pod: Pod) -> tuple[Endpoint, ...]:
    """Where the release's Service leads at a pod; all that it listens on where there is no Service. A scrape of its
    metrics is no client (istio #48263)."""
    spec = (sight.services.get(sight.scene.spec.service) or {}).get("spec") or {}
    families = spec.get("ipFamilies") or ["IPv4", "IPv6"]
    ips = [ip for ip in pod.ips if ("IPv6" if ":" in ip else "IPv4") in families]
    wanted = []
    for one in spec.get("ports") or ():
        target = one.get("targetPort") or one.get("port")
        named = [port.number for port in pod.ports if port.name == target and port.protocol == "TCP"]
        if one.get("protocol", "TCP") == "TCP":
            wanted += named if isinstance(target, str) and not target.isdigit() else [int(target)]
    return tuple(Endpoint(ip, port) for ip in ips for port in (sorted(set(wanted)) or [0]))


def _chunks(asked: list[tuple[Pod, tuple[Endpoint, ...]]]) -> list[list[tuple[Pod, tuple[Endpoint, ...]]]]:
    found: list[list[tuple[Pod, tuple[Endpoint, ...]]]] = []
    size = 0
    for one, at in asked:
        if not found or size + len(at) > ENDPOINTS_MAX:
            found.append([])
            size = 0
        found[-1].append((one, at))
        size += len(at)
    return found


def _count(quiet: Quiet, at: tuple[Endpoint, ...]) -> int:
    return sum(any(endpoint.covers(one.local) for endpoint in at) for one in quiet.live)


def never_served(obj: JsonObject) -> bool:
    """Whether what runs in a pod now was never ready, so that no Service ever listed it: nothing runs, or the pod has
    not been ready since before it began. Instants of one kubelet, RFC 3339 of one length."""
    status = obj.get("status") or {}
    states = [one.get("state") or {} for one in status.get("containerStatuses") or ()]
    begun = [str(one["running"].get("startedAt") or "") for one in states if one.get("running") is not None]
    for one in status.get("conditions") or ():
        if one.get("type") == "Ready":
            since = str(one.get("lastTransitionTime") or "~")
            return one.get("status") == "False" and all(since <= at for at in begun)
    return not begun
