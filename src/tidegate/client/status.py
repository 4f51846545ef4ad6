"""``status_of`` and ``follow_status``: who gets traffic and why, as every node shows it; ``orphans_of``: held pods."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from tidegate import vtime
from tidegate.client.kinds import KIND_OF, RESOURCES
from tidegate.client.status_document import Scope, Sight, asked_about, served_by
from tidegate.client.status_nodes import Asking, Heard
from tidegate.client.status_sources import Nouns, Sources, following, read
from tidegate.kube.api import PODS, JsonObject, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError
from tidegate.kube.reflector import Reflector
from tidegate.model import pod as pod_noun
from tidegate.model import selector
from tidegate.model.decode import Malformed
from tidegate.model.pod import Pod
from tidegate.model.service import Service
from tidegate.traffic import Census, all_held
from tidegate.traffic.revision import labels_before
from tidegate.vtime import Nursery

ASK_SECONDS = 1.0
"""While following, the agents are asked no more often than this."""


@dataclass(frozen=True, slots=True)
class Subject:
    """``kind`` is one of ``client.kinds``, or ``namespace``, or ``cluster``; ``labels`` select pods of a namespace."""

    kind: str
    namespace: str
    name: str = ""
    labels: str = ""


@dataclass(frozen=True, slots=True)
class Status:
    """One answer. ``document`` is the JSON that ``-o json`` prints; docs/json.md names its keys."""

    document: dict[str, Any]


async def status_of(client: KubeClient, kind: str, namespace: str, name: str = "", labels: str = "") -> Status:
    """The status of ``KIND/NAME``, of a namespace, or of the cluster.

    Raises ``KubeError`` (404: no such object), ``Malformed`` for a selector that cannot be read.
    """
    subject = Subject(kind, namespace, name, labels)
    sources = await read(client, "" if kind == "cluster" else namespace)
    return await _look(subject, sources, Nouns(), Asking(client))


async def follow_status(client: KubeClient, subject: Subject) -> AsyncIterator[Status]:
    """The status now, and again whenever it is another: watches tell of the API, agents are asked once a second.

    Raises as ``status_of``; a subject that goes while it is followed ends it with the 404.
    """
    nouns, asking = Nouns(), Asking(client)
    shown: dict[str, Any] | None = None
    async with following(client, "" if subject.kind == "cluster" else subject.namespace) as sources:
        while True:
            sources.changed.clear()
            began = asyncio.get_running_loop().time()
            found = await _look(subject, sources.sources, nouns, asking)
            if steady(found.document) != shown:
                shown = steady(found.document)
                yield found
            left = began + ASK_SECONDS - asyncio.get_running_loop().time()
            await asyncio.sleep(max(left, ASK_SECONDS / 10))


def steady(document: dict[str, Any]) -> dict[str, Any]:
    """The document without what is another at every look though nothing happened: how long a drain has run."""
    drains = [{key: value for key, value in drain.items() if key != "seconds"} for drain in document["drains"]]
    return {**document, "drains": drains}


async def orphans_of(client: KubeClient, namespace: str) -> Status:
    """Every held pod that nobody is at work on, in ``namespace`` ("" is all). Raises ``KubeError``.

    By label and by annotation: a pod may have lost one, and annotations cannot be selected on.
    """
    return _orphans((await client.list(PODS, Selection(namespace))).items, namespace)


async def follow_orphans(client: KubeClient, namespace: str) -> AsyncIterator[Status]:
    """The same now, and again whenever it is another: a lease that ends is no event, so the clock is asked too."""
    shown: dict[str, Any] | None = None
    pods = Reflector(client, PODS, Selection(namespace))
    await client.list(PODS, Selection(namespace, fields="metadata.name=-"))  # what cannot be read fails at once
    async with Nursery() as nursery:
        nursery.start(pods.run(), name="watch pods")
        await pods.synced()
        try:
            while True:
                found = _orphans(list(pods.objects.values()), namespace)
                if found.document != shown:
                    shown = found.document
                    yield found
                await asyncio.sleep(ASK_SECONDS)
        finally:
            nursery.cancel()


def _orphans(listed: list[JsonObject], namespace: str) -> Status:
    found: list[Pod] = []
    problems: list[str] = []
    for obj in listed:
        try:
            found.append(pod_noun.decode(obj))
        except Malformed as error:
            problems.append(str(error))
    now = vtime.now()
    sight = Sight(Census(found), Heard(), now)
    held = [sight.hold(one) for one in all_held(found) if one.is_orphan(now)]
    return Status({"kind": "orphans", "namespace": namespace, "held": held, "problems": problems})


async def _look(subject: Subject, sources: Sources, nouns: Nouns, asking: Asking) -> Status:
    if PODS not in sources.objects and subject.kind not in ("svc", "namespace", "cluster"):
        raise ApiError(403, "Forbidden", next(one for one in sources.problems if one.startswith(PODS.plural)))
    census, malformed = nouns.census(sources)
    scope = scope_of(subject, census)
    services = tuple(str(one) for one in scope.services)
    heard = await asking.ask(sources.nodes, asked_about(census, scope), served_by(census, scope), services)
    sight = Sight(census, heard, vtime.now())
    found = sight.document(scope)
    held = all_held(_spread(subject, census) if subject.kind in ("namespace", "cluster") else scope.pods)
    document = {
        "kind": subject.kind,
        "namespace": subject.namespace,
        "name": subject.name,
        **found,
        "held": [sight.hold(one) for one in held],
        "problems": [*sources.problems, *malformed, *heard.problems],
    }
    if scope.only is not None:
        (document["pod"],) = document.pop("pods")
    return Status(document)


def _spread(subject: Subject, census: Census) -> tuple[Pod, ...]:
    return tuple(pod for pod in census.pods if subject.kind == "cluster" or pod.namespace == subject.namespace)


def scope_of(subject: Subject, census: Census) -> Scope:
    """What of the census ``subject`` is about. Raises ``ApiError`` 404, ``Malformed``."""
    match subject.kind:
        case "cluster":
            return Scope(services=census.services)
        case "svc":
            return Scope(services=(_named(subject, (*census.services, *census.draining)),))
        case "pod":
            one = _named(subject, census.pods)
            return Scope(services=_services_of(one, census), pods=(one,), only=one)
        case "namespace":
            services = tuple(one for one in census.services if one.namespace == subject.namespace)
            mine = tuple(one for one in census.pods if one.namespace == subject.namespace)
            tops = tuple(one for one in census.workloads if one.owner is None and (one.desired or census.owned_by(one)))
            if not subject.labels:
                return Scope(services, tuple(pod for pod in mine if not census.services_of(pod)), tops)
            wanted = selector.parse(subject.labels)
            chosen = tuple(pod for pod in mine if wanted.matches(pod.labels))
            return Scope(_all_of(chosen, census), chosen)
        case _:
            one_of_kind = tuple(one for one in census.workloads if KIND_OF.get(one.kind) == subject.kind)
            workload = _named(subject, one_of_kind)
            owned = census.owned_by(workload)
            return Scope(_all_of(owned, census), owned, (workload,))


def _all_of(chosen: tuple[Pod, ...], census: Census) -> tuple[Service, ...]:
    """The Services of any of ``chosen``, in the order of the census."""
    found = {str(one) for pod in chosen for one in _services_of(pod, census)}
    return tuple(one for one in census.services if str(one) in found)


def _services_of(subject: Pod, census: Census) -> tuple[Service, ...]:
    """The Services that select it, or did before it was cut."""
    now = set(map(str, census.services_of(subject)))
    before = labels_before(subject)
    return tuple(one for one in census.services if str(one) in now or one.selects(subject.namespace, before))


def _named(subject: Subject, found: tuple[Any, ...]) -> Any:
    one = next((one for one in found if (one.namespace, one.name) == (subject.namespace, subject.name)), None)
    if one is None:
        plural = RESOURCES[subject.kind].plural
        raise ApiError(404, "NotFound", f'{plural} "{subject.name}" not found')
    return one
