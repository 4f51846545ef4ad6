"""``verify_pod``: does traffic reach it? Asks everybody, tries where asked to, and changes nothing on the pod."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from tidegate.client.probing import HTTP_DEFAULT, Address, Probing, Tried, addresses
from tidegate.client.verification import Listed, NodeWord, Verification, judge_node, listed_of, outcome_of
from tidegate.dataplane.facts import Facts, Unreadable
from tidegate.dataplane.sockets import Quiet
from tidegate.drain.acknowledgement import Verdict
from tidegate.drain.source import suspects
from tidegate.drain.state import Mode
from tidegate.engine.observe import ViewFollower
from tidegate.kube.api import ENDPOINTSLICES, NODES, PODS, SERVICES, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, KubeError
from tidegate.model import endpointslice, pod, service
from tidegate.model.decode import Malformed
from tidegate.model.endpointslice import EndpointSlice
from tidegate.model.names import DrainRecord, decode_drain
from tidegate.model.pod import Pod
from tidegate.model.service import Service
from tidegate.observers.coordinator import Ask, View, ask_of
from tidegate.observers.proxied import ProxiedAgents, ProxiedCoordinator, is_installed
from tidegate.observers.witness import Question
from tidegate.traffic import every_endpoint, listings, selecting
from tidegate.vtime import Nursery

DIRTY_SECONDS = 2.0
"""How long the slices may still list a pod before that is the answer: the controller is milliseconds behind."""
SILENT_SECONDS = 5.0
"""How long to wait, when all others are decided, for nodes that cannot be asked or read."""
_DECIDED = (Verdict.CONFIRMED.value, Verdict.REFUTED.value)
_SILENT = (Verdict.UNREACHABLE.value, Verdict.UNREADABLE.value, Verdict.EXCEPTED.value, Verdict.ASSUMED.value)


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """``service``: only its routes. ``probes``: connections from each node through each address; ``path``: GETs."""

    timeout_seconds: float = 60.0
    service: str = ""
    probes: int = 0
    path: str = ""
    seed: int | None = None
    """Of the question's name; ``None`` draws one."""

    @property
    def following_seconds(self) -> float:
        """Of the timeout, for the nodes to let go; where connections are to be tried, half of it is left for them."""
        return self.timeout_seconds / 2 if self.probes or self.path else self.timeout_seconds


@dataclass(frozen=True, slots=True)
class Subject:
    """The pod, and what the API has of it: its record, the Services in question, everybody's slices."""

    pod: Pod
    record: DrainRecord | None
    services: tuple[Service, ...]
    slices: tuple[EndpointSlice, ...]
    nodes: tuple[str, ...]

    @property
    def listed(self) -> tuple[Listed, ...]:
        return listed_of(self.pod, self.services, self.slices)


async def verify_pod(
    client: KubeClient, namespace: str, name: str, options: VerifyOptions | None = None
) -> Verification:
    """Whether any route to the pod is left. Raises ``KubeError`` (404: no such pod, no such Service)."""
    chosen = options or VerifyOptions()
    loop = asyncio.get_running_loop()
    began = loop.time()
    until = began + chosen.timeout_seconds
    subject = await _look(client, namespace, name, chosen)
    is_witnessed = await is_installed(client)
    view, failure = None, ""
    if is_witnessed:
        view, failure = await _follow(client, subject, chosen, began + chosen.following_seconds)
        subject = await _look(client, namespace, name, chosen)
    agents = ProxiedAgents(client)
    words = await _words(agents, subject, chosen, view) if is_witnessed else ()
    tried = await _probe(agents, subject, chosen, until) if is_witnessed else ()
    suspected = view.suspected if view is not None else suspects(_before(subject), subject.services)
    problems = [failure] if failure else []
    if not is_witnessed:
        problems.append("there is no coordinator in this cluster, so no node can be asked: install the node agents")
        if chosen.probes or chosen.path:
            problems.append("nothing was probed: it takes a node agent to open connections from a node")
    elif not words:
        problems.append("no node is known to the API server")
    if is_witnessed and not tried and (chosen.probes or chosen.path):
        problems.append("nothing was probed: no Service with an address is known to be its own, name one (--service)")
    if not every_endpoint(subject.pod):
        problems.append(
            "it uses its node's network and declares no port: its routes cannot be told apart"
            if subject.pod.host_network
            else "it has no address yet"
        )
    return outcome_of(
        Verification(
            pod=subject.pod,
            services=tuple(str(one) for one in subject.services),
            listed=subject.listed,
            source=view.reasons if view is not None and view.clean_at is None else (),
            nodes=words,
            connections=await _connections(agents, subject) if is_witnessed else Quiet(unreadable=(_NOBODY,)),
            suspected=suspected,
            tried=tried,
            problems=tuple(problems),
            epoch=view.epoch if view is not None else "",
            seconds=round(loop.time() - began, 3),
            is_witnessed=is_witnessed,
        )
    )


_NOBODY = Unreadable("there is no agent to read the pod's sockets")


# --- what the API has ---


async def _look(client: KubeClient, namespace: str, name: str, options: VerifyOptions) -> Subject:
    found = pod.decode(await client.get(PODS, name, namespace))
    try:
        record = decode_drain(found.annotations)
    except Malformed:
        record = None  # garbage on the pod: it is asked about as it stands
    services = tuple(service.decode(obj) for obj in (await client.list(SERVICES, Selection(namespace))).items)
    slices = tuple(endpointslice.decode(obj) for obj in (await client.list(ENDPOINTSLICES)).items)
    nodes = tuple(sorted(obj["metadata"]["name"] for obj in (await client.list(NODES)).items))
    subject = Subject(found, record, services, slices, nodes)
    if options.service and all(one.name != options.service for one in services):
        raise ApiError(404, "NotFound", f'services "{options.service}" not found')
    return _narrowed(subject, options.service)


def _narrowed(subject: Subject, only: str) -> Subject:
    """The Services that select the pod, did before it was cut, or list it; ``only`` the one asked about."""
    listing = {found.service for found in listings(subject.pod, subject.slices)}
    seen = set(subject.record.seen) if subject.record is not None else set()
    now = selecting(subject.pod, subject.services)
    before = selecting(_before(subject), subject.services)
    wanted = tuple(
        one
        for one in subject.services
        if (one.name == only if only else one in now or one in before or str(one) in listing | seen)
    )
    # What keeps cut pods scrapeable is no route: nothing proxies it.
    no_routes = {(one.namespace, one.name) for one in subject.services if one.is_draining}
    wanted = tuple(one for one in wanted if not one.is_draining)
    slices = tuple(one for one in subject.slices if (one.namespace, one.service) not in no_routes)
    if only:
        slices = tuple(one for one in slices if (one.namespace, one.service) == (subject.pod.namespace, only))
    return Subject(subject.pod, subject.record, wanted, slices, subject.nodes)


def _before(subject: Subject) -> Pod:
    """The pod with the labels its clients knew it by."""
    record = subject.record
    if record is None or not record.labels:
        return subject.pod
    return msgspec.structs.replace(subject.pod, labels=record.labels)


# --- what the nodes say ---


async def _follow(
    client: KubeClient, subject: Subject, options: VerifyOptions, until: float
) -> tuple[View | None, str]:
    """The coordinator's view once every node is decided, or as it stands at the end; and why there is none."""
    if not every_endpoint(subject.pod):
        return None, ""
    changed = asyncio.Event()
    follower = ViewFollower(ProxiedCoordinator(client), _ask(subject, options), changed.set)
    loop = asyncio.get_running_loop()
    waiting_since: dict[str, float] = {}
    async with Nursery() as nursery:
        nursery.start(follower.run(), name=f"follow {subject.pod}")
        while loop.time() < until:
            changed.clear()
            wait = _patience(follower.view, waiting_since, loop.time())
            if wait <= 0:
                break
            try:
                async with asyncio.timeout(min(wait, until - loop.time())):
                    await changed.wait()
            except TimeoutError:
                continue
        nursery.cancel()
    await follower.finish()
    return follower.view, follower.failure if follower.view is None else ""


def _patience(view: View | None, since: dict[str, float], now: float) -> float:
    """How much longer to wait for another view; 0 when this one says all it is going to."""
    state, seconds = _standing(view)
    if state not in since:
        since.clear()
        since[state] = now
    return max(0.0, since[state] + seconds - now)


def _standing(view: View | None) -> tuple[str, float]:
    """Where a view stands, and for how long it may stand there."""
    if view is None or view.observers is None:
        return "nothing", float("inf")
    if view.clean_at is None:
        return "dirty", DIRTY_SECONDS
    verdicts = [one.verdict for one in view.nodes]
    if not verdicts or any(verdict not in (*_DECIDED, *_SILENT) for verdict in verdicts):
        return "waiting", float("inf")
    return ("silent", SILENT_SECONDS) if any(verdict in _SILENT for verdict in verdicts) else ("decided", 0.0)


def _ask(subject: Subject, options: VerifyOptions) -> Ask:
    rng = random.Random() if options.seed is None else random.Random(f"{options.seed}/verify/{subject.pod.uid}")
    # A pod that is being deleted stays listed, as terminating: that alone is no route.
    mode = Mode.GATE if subject.pod.is_terminating else Mode.LABEL
    own = subject.pod
    ask = ask_of((own.uid, own.namespace, own.name), every_endpoint(own), mode)
    return msgspec.structs.replace(
        ask,
        round=f"verify-{rng.getrandbits(48):012x}",
        seen=subject.record.seen if subject.record is not None else (),
        services=tuple(str(one) for one in subject.services) if options.service else (),
    )


async def _words(
    agents: ProxiedAgents, subject: Subject, options: VerifyOptions, view: View | None
) -> tuple[NodeWord, ...]:
    """Every node's verdict at the fence, and beside it the routes that its tables show now."""
    endpoints = every_endpoint(subject.pod)
    only = tuple(str(one) for one in subject.services) if options.service else ()
    names = view.observers if view is not None and view.observers is not None else subject.nodes
    verdicts = {one.node: one for one in view.nodes} if view is not None and view.clean_at is not None else {}

    async def one(node: str) -> NodeWord:
        if "/" in node:  # an observer that is no node: the coordinator asks it, and nobody else
            unasked = (Unreadable("it was not asked, for no fence was written"),)
            return judge_node(Facts(node, "", unreadable=() if node in verdicts else unasked), verdicts.get(node))
        try:
            facts = (await agents.ask(node, Question(endpoints))).facts.about(only)
        except KubeError as error:
            facts = Facts(node, "", unreadable=(Unreadable(f"cannot be asked: {error}"),))
        return judge_node(facts, verdicts.get(node))

    return tuple(await asyncio.gather(*(one(node) for node in names)))


async def _connections(agents: ProxiedAgents, subject: Subject) -> Quiet:
    own = every_endpoint(subject.pod)
    if not subject.pod.node or not own:
        return Quiet(unreadable=(Unreadable("it has no address on a node"),))
    return await agents.connections(subject.pod.node, own)


async def _probe(agents: ProxiedAgents, subject: Subject, options: VerifyOptions, until: float) -> tuple[Tried, ...]:
    if not options.probes and not options.path:
        return ()
    ways: Iterable[Address] = addresses(subject.services)
    probing = Probing(agents, subject.pod, options.probes or HTTP_DEFAULT, options.path)
    return await probing.run(subject.nodes, ways, until - asyncio.get_running_loop().time())
