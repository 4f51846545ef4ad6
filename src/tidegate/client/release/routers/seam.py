"""The seam of routers: read the object, write weights, put it back. Another router is one file and a line in
``ROUTERS``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

from tidegate.client.release.ground import Failed, Ground
from tidegate.client.release.look import Sight
from tidegate.client.release.routers.httproute import HttpRoute
from tidegate.client.release.routers.pair import Pair
from tidegate.client.release.routers.traefik import TraefikService
from tidegate.engine.act import Step as Change
from tidegate.engine.act import write
from tidegate.kube.api import Api, JsonObject, Resource
from tidegate.kube.errors import ApiError
from tidegate.release.canary_steps import canary_service
from tidegate.release.fork import Fork
from tidegate.release.plan import Step
from tidegate.release.scene import REVISION_LABEL, Scene


class Router(Protocol):
    """How one kind of object divides requests. Everything is about the object as it was read; nothing is written."""

    resource: Resource

    def fork(self, obj: JsonObject, pair: Pair) -> Fork:
        """Raises ``ValueError`` for an object that a canary cannot divide."""
        ...

    def divided(self, obj: JsonObject, pair: Pair, percent: int, header: str) -> list[Change]:
        """Raises ``ValueError``."""
        ...

    def restored(self, obj: JsonObject, pair: Pair) -> list[Change]: ...

    def behind(self, obj: JsonObject) -> tuple[str, ...]:
        """Who has not said yet that the object as it stands is in effect, by the object's own status."""
        ...

    def controllers(self, obj: JsonObject) -> tuple[str, ...]:
        """Whose object it is."""
        ...


ROUTERS: Mapping[str, Router] = {"httproute": HttpRoute(), "traefik": TraefikService()}


def pair_of(scene: Scene, namespace: str) -> Pair:
    return Pair(namespace, scene.spec.canary.service, canary_service(scene))


async def see(api: Api, sight: Sight) -> None:
    """Read the router's object into ``sight`` and its scene. What cannot be read is a problem of the scene."""
    scene = sight.scene
    router = ROUTERS.get(scene.spec.canary.router)
    if scene.spec.strategy != "canary" or router is None or not scene.editions:
        return
    name, namespace = scene.spec.canary.route, sight.entry.namespace
    try:
        sight.route = await api.get(router.resource, name, namespace)
        fork = router.fork(sight.route, pair_of(scene, namespace))
    except (ApiError, ValueError) as error:
        is_missing = isinstance(error, ApiError) and error.is_not_found
        why = f"there is no {router.resource.kind} {name} in namespace {namespace}" if is_missing else str(error)
        sight.scene = replace(scene, problems=(*scene.problems, f"$.spec.canary.route: {why}"))
        return
    sight.scene = replace(scene, fork=fork, weights=weights_of(scene, fork))


def weights_of(scene: Scene, fork: Fork) -> dict[str, int]:
    """Revision -> percent. A Service that tells revisions apart by nothing is the stable one's."""
    found: dict[str, int] = {}
    for service, percent in fork.shares.items():
        way = scene.way(service)
        # Of a Service, or a revision, that is gone the share is nobody's: least of all the stable one's.
        mark = way.selector.get(REVISION_LABEL, scene.status.stable) if way is not None else f"svc/{service}"
        revision = next((one.revision for one in scene.editions if one.mark == mark), mark)
        found[revision] = found.get(revision, 0) + percent
    return found


async def weigh(ground: Ground, sight: Sight, step: Step) -> None:
    """Weights into the router's object, as it was read (``step.weights``, ``detail``: ``header``, ``restore``).

    Raises ``Failed``, ``ApiError``.
    """
    scene = sight.scene
    router, pair = ROUTERS[scene.spec.canary.router], pair_of(scene, sight.entry.namespace)
    if sight.route is None:
        raise Failed(f"{step.subject} was not read")
    try:
        if step.detail.get("restore"):
            changes = router.restored(sight.route, pair)
        else:
            changes = router.divided(sight.route, pair, _percent(scene, step, pair), str(step.detail.get("header", "")))
    except ValueError as error:
        raise Failed(str(error)) from error
    await write(ground.client, router.resource, sight.route, changes)


def _percent(scene: Scene, step: Step, pair: Pair) -> int:
    """The share of the canary's Service: of the revision that it selects. Raises ``ValueError``."""
    for service, is_canary in ((pair.stable, False), (pair.canary, True)):
        way = scene.way(service)
        mark = way.selector.get(REVISION_LABEL) if way is not None else None
        revision = next((one.revision for one in scene.editions if one.mark == mark), None)
        if revision is not None and revision in (step.weights or {}):
            weight = (step.weights or {})[revision]
            return weight if is_canary else 100 - weight
    raise ValueError(f"svc/{pair.stable} and svc/{pair.canary} select none of the revisions that are weighed")
