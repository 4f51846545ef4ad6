"""Acknowledgements of a whole revision: is it routed everywhere, or nowhere any more?

One question to the coordinator, whatever the number of pods. A quorum LIST of the EndpointSlices comes first: it has to
say what is asked already (every ready pod of the revision listed; or none). The epoch is written after that LIST, so
whoever shows it has taken in what the LIST said, additions and removals (``docs/protocol.md``, the order of the fence).
Whoever is no node and lists endpoints is asked for ``routed`` that it sends to each of them (``observers.addition``).
``unrouted`` asks besides for every endpoint of the revision that no dump has a route to it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from tidegate import vtime
from tidegate.drain.acknowledgement import LETTING_GO, Verdict
from tidegate.drain.state import Mode
from tidegate.kube.api import ENDPOINTSLICES, SERVICES, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import KubeError
from tidegate.model import endpointslice
from tidegate.model.decode import Malformed
from tidegate.model.endpoint import Endpoint
from tidegate.model.endpointslice import EndpointSlice
from tidegate.model.names import FENCE_PREFIX, SYSTEM_NAMESPACE
from tidegate.model.pod import Pod
from tidegate.observers.addition import Addition, Joining
from tidegate.observers.coordinator import Ask, QuestionRefused, View, ask_of, fields_of
from tidegate.observers.proxied import ProxiedCoordinator, is_installed
from tidegate.release.record import Asked
from tidegate.release.scene import Question
from tidegate.traffic import every_endpoint, listings

SETTLE_SECONDS = 15.0
"""Where nobody can be asked: as in every other verb (design §2.8). The answer is then ``assumed``."""
WAIT_SECONDS = 5.0
RETRY_SECONDS = 0.5
FORGET_SECONDS = 2.0
NOWHERE = Endpoint("192.0.2.1", 9)
"""Documentation range (RFC 5737): no pod, so no route. Asking for it asks for the epoch alone."""

Heard = Callable[[Asked], None]


@dataclass(frozen=True, slots=True)
class Subject:
    """A question and the pods that it is about, as they were when it was asked."""

    namespace: str
    question: Question
    pods: tuple[Pod, ...]
    others: tuple[Pod, ...] = ()
    """Those that the Service had before: who routes to any of them routes by this Service."""

    @property
    def service(self) -> str:
        return f"{self.namespace}/{self.question.service}"

    def is_outdated(self, pods: Iterable[Pod]) -> bool:
        """Whether it comes to no end, ``pods`` being those of the revision now: of those that are to be listed one has
        left, and nobody lists it again; or the one that stands for those that are not (``_ask``) is gone."""
        is_addition = self.question.kind == "routed"
        there = {one.uid for one in pods if not one.is_finished and not (is_addition and one.is_terminating)}
        return any(one.uid not in there for one in (self.pods if is_addition else self.pods[:1]))


async def answer(client: KubeClient, subject: Subject, nonce: str, heard: Heard) -> Asked:
    """Ask until it is settled, or refused; ``heard`` is told what is known so far. For ever, if need be: cancel it.

    A release that goes on by an answer re-checks the objects; the answer is as of ``Asked.at``.
    """
    if not subject.pods and subject.question.kind == "routed":
        return Asked("no", at=_now(), stragglers=(f"no pod of {subject.question.revision} is ready",))
    if not subject.pods:
        return Asked("yes", at=_now())  # no pod, no route
    while True:
        try:
            # Who can be asked, and of which fence, is looked up beside the LIST; the question itself comes after it.
            (missing, own), has_coordinator, fence = await asyncio.gather(
                _source(client, subject), is_installed(client), _fence(client, subject)
            )
            if not missing:
                if not has_coordinator:
                    return await _settled(client, subject, heard)
                found = await _follow(client, subject, _ask(subject, own, fence, nonce), heard)
                if found is not None:
                    return found
                continue
            heard(Asked("no", at=_now(), stragglers=missing))
        except QuestionRefused as error:
            return Asked("no", at=_now(), stragglers=("coordinator (refuses the question)",), refused=str(error))
        except KubeError as error:
            heard(Asked("no", at=_now(), stragglers=(f"cannot be asked: {error}",)))
        await asyncio.sleep(RETRY_SECONDS)


def _now() -> float:
    return vtime.now().timestamp()


async def _unlike(client: KubeClient, subject: Subject) -> tuple[str, ...]:
    return (await _source(client, subject))[0]


async def _source(client: KubeClient, subject: Subject) -> tuple[tuple[str, ...], tuple[EndpointSlice, ...]]:
    """In what the EndpointSlices of the Service, all of them, are not as asked, and they themselves; a quorum LIST.
    Raises ``KubeError``."""
    try:
        found = (await client.list(ENDPOINTSLICES, Selection(subject.namespace))).items
        slices = [endpointslice.decode(obj) for obj in found]
    except Malformed as error:
        return (str(error),), ()
    own = tuple(one for one in slices if one.service == subject.question.service)
    listed = {one.name: [entry for entry in listings(one, own) if entry.endpoint.is_ready] for one in subject.pods}
    if subject.question.kind == "routed":
        why = f"svc/{subject.question.service} does not list"
        return tuple(f"{why} pod/{name} yet" for name, at in listed.items() if not at), own
    return tuple(f"{entries[0]}" for entries in listed.values() if entries), own


def addition_of(subject: Subject, own: Iterable[EndpointSlice]) -> Addition:
    """The pods asked about as the Service's slices (``own``) have them, and where everybody else of it is or was."""
    pods: list[Joining] = []
    slices = tuple(own)
    for one in subject.pods:
        entries = listings(one, slices)
        endpoints = {at for entry in entries for at in entry.slice.endpoints_of(entry.endpoint)}
        zone = next((entry.endpoint.zone for entry in entries if entry.endpoint.zone), "")
        pods.append(Joining(f"pod/{one.name}", tuple(sorted(endpoints)), zone))
    known = {at for joining in pods for at in joining.endpoints}
    listed = {at for slice_ in slices for one in slice_.endpoints for at in slice_.endpoints_of(one)}
    ports = {(port.number, port.protocol) for slice_ in slices for port in slice_.ports}
    before = {Endpoint(ip, *port) for one in subject.others for ip in one.ips for port in ports}
    others = {*listed, *before} - known
    return Addition(subject.service, tuple(pods), tuple(sorted(others)))


async def _settled(client: KubeClient, subject: Subject, heard: Heard) -> Asked:
    """Nobody can be asked: a while, and the slices once more."""
    why = "no coordinator in this cluster: nodes cannot be asked"
    heard(Asked("no", at=_now(), stragglers=(f"{why}, waiting {SETTLE_SECONDS:g} s instead",)))
    await asyncio.sleep(SETTLE_SECONDS)
    missing = await _unlike(client, subject)
    if missing:
        return Asked("no", at=_now(), stragglers=missing)
    return Asked("assumed", at=_now(), seconds=SETTLE_SECONDS, assumed=(why,))


async def _follow(client: KubeClient, subject: Subject, ask: Ask, heard: Heard) -> Asked | None:
    """The coordinator's word; None where the slices have changed meanwhile. Raises ``KubeError``."""
    began = _now()
    coordinator = ProxiedCoordinator(client)
    try:
        view = await _clean(client, coordinator, (subject, ask), heard)
    except (Exception, asyncio.CancelledError):  # no ``finally``: who is collected with its loop tells nobody any more
        await _forget(coordinator, ask)
        raise
    await _forget(coordinator, ask)
    if view is None or await _unlike(client, subject):
        return None
    doubts = tuple(f"{one.node}: {one.detail}" for one in view.nodes if one.verdict != Verdict.CONFIRMED.value)
    doubts = (*doubts, *view.suspected)
    return Asked("assumed" if doubts else "yes", view.epoch, _now(), _now() - began, (), doubts)


async def _clean(
    client: KubeClient, coordinator: ProxiedCoordinator, asked: tuple[Subject, Ask], heard: Heard
) -> View | None:
    """The view in which nobody is a straggler, looked at twice; None where the slices have changed meanwhile."""
    subject, ask = asked
    began, since, told = _now(), "", None
    while True:
        view = await coordinator.acknowledge(msgspec.structs.replace(ask, since=since, wait_seconds=WAIT_SECONDS))
        since = view.version
        stragglers = _stragglers(view)
        if not stragglers:
            view = await coordinator.acknowledge(msgspec.structs.replace(ask, fresh=True))
            stragglers = _stragglers(view) or (() if view.is_fresh else ("a last look could not be had",))
            if not stragglers:
                return view
        if stragglers != told:
            told = stragglers
            heard(Asked("no", view.epoch, _now(), _now() - began, stragglers))
        if await _unlike(client, subject):
            return None
        if view.clean_at is None:  # just begun, or begun anew by whoever asks about the same pod
            await asyncio.sleep(RETRY_SECONDS / 10)


async def _fence(client: KubeClient, subject: Subject) -> str:
    """The Service of the fence, where its epoch alone is asked for. Raises ``KubeError``."""
    if subject.question.kind != "routed":
        return ""
    fences = (await client.list(SERVICES, Selection(SYSTEM_NAMESPACE))).items
    names = sorted(f"{SYSTEM_NAMESPACE}/{one['metadata']['name']}" for one in fences if _is_fence(one))
    return names[0] if names else f"{SYSTEM_NAMESPACE}/{FENCE_PREFIX}"


def _ask(subject: Subject, own: Iterable[EndpointSlice], fence: str, nonce: str) -> Ask:
    """One question for all pods: the first stands for them where the coordinator looks at slices itself."""
    first = subject.pods[0]
    if subject.question.kind == "routed":
        # Its pod is in the Service and is to stay there: asked for is the epoch, of a Service it is not in. That is all
        # for nodes, who show it with every addition from before it; others may list a pod before they send to it.
        endpoints: tuple[Endpoint, ...] = (NOWHERE,)
        services: tuple[str, ...] = (fence,)
        seen: tuple[str, ...] = ()
        addition = fields_of(addition_of(subject, own))
    else:
        endpoints = tuple(sorted({at for one in subject.pods for at in every_endpoint(one)}))
        services = seen = (subject.service,)
        addition = None
    ask = ask_of((first.uid, first.namespace, first.name), endpoints, Mode.LABEL)
    return msgspec.structs.replace(
        ask, round=f"{subject.question.key}-{nonce}", services=services, seen=seen, addition=addition
    )


def _is_fence(obj: dict[str, object]) -> bool:
    metadata = obj["metadata"]
    return isinstance(metadata, dict) and str(metadata.get("name", "")).startswith(FENCE_PREFIX)


def _stragglers(view: View) -> tuple[str, ...]:
    if view.clean_at is None:
        return view.reasons or ("the EndpointSlices have not been listed yet",)
    if view.observers is None:
        return ("the nodes have not been listed yet",)
    if not view.epoch or not view.nodes:
        return ("no epoch yet",)
    known = {one.node for one in view.nodes}
    letting_go = {verdict.value for verdict in LETTING_GO}
    behind = [f"{one.node}: {one.detail}" for one in view.nodes if one.verdict not in letting_go]
    return (*behind, *(f"{name}: not heard yet" for name in view.observers if name not in known))


async def _forget(coordinator: ProxiedCoordinator, ask: Ask) -> None:
    """Tell the coordinator that nobody waits any more; it forgets by itself after a minute."""
    with contextlib.suppress(KubeError, TimeoutError):
        async with asyncio.timeout(FORGET_SECONDS):
            await coordinator.acknowledge(msgspec.structs.replace(ask, done=True))


def subject_of(namespace: str, question: Question, pods: Iterable[Pod], others: Iterable[Pod] = ()) -> Subject:
    """Of pods that stay. ``routed`` is asked of those that are ready; ``others``: whom the Service had before."""
    staying = [one for one in pods if not one.is_finished and one.ips]
    if question.kind == "routed":
        staying = [one for one in staying if one.is_ready and not one.is_terminating]
    return Subject(namespace, question, tuple(staying), tuple(one for one in others if one.ips))
