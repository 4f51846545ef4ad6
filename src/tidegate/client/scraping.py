"""Pods that were cut stay scrapeable: a headless Service lists them for those that find their targets by endpoints.

It selects whatever is out of traffic (``tidegate.dev/held: cut``), ready or not, has no port and no address, so no data
plane routes it (``Service.is_draining``). It comes with the first cut of a namespace and goes with its last pod. Who
may not write Services gets everything else: the Service is a convenience, never a condition.
"""

from __future__ import annotations

from tidegate.client.permissions import Deed, review
from tidegate.kube.api import PODS, SERVICES, Api, Deletion, JsonObject, Selection
from tidegate.kube.errors import ApiError, KubeError
from tidegate.model import service
from tidegate.model.names import DRAINING_SERVICE, HELD, HELD_CUT, MANAGED_BY, TIDEGATE
from tidegate.model.service import Service


def draining_service(namespace: str) -> JsonObject:
    """The Service itself."""
    return {
        "apiVersion": SERVICES.api_version,
        "kind": SERVICES.kind,
        "metadata": {"name": DRAINING_SERVICE, "namespace": namespace, "labels": {MANAGED_BY: TIDEGATE}},
        "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {HELD: HELD_CUT}},
    }


async def see_to(api: Api, namespace: str) -> str:
    """The Service there while any pod is out of traffic, and gone after; why it is not, in a sentence.

    Never raises ``KubeError``. Called by every verb after its first write and at its end: of two that come and go at
    once the one that stays puts it right.
    """
    try:
        is_wanted = bool((await api.list(PODS, Selection(namespace, f"{HELD}={HELD_CUT}"))).items)
        found = await _found(api, namespace)
        if is_wanted and found is None:
            await api.create(SERVICES, draining_service(namespace), namespace)
        elif is_wanted and found is not None and not found.is_draining:
            return f"Service {found} is not ours: scrapers that follow endpoints lose what is cut"
        elif not is_wanted and found is not None and found.is_draining and found.labels.get(MANAGED_BY) == TIDEGATE:
            await api.delete(SERVICES, found.name, namespace, Deletion(uid=found.uid))
    except KubeError as error:
        is_overtaken = isinstance(error, ApiError) and (error.is_conflict or error.is_not_found)
        return "" if is_overtaken else f"scrapers that follow endpoints lose what is cut: {error}"
    return ""


async def lacking(api: Api, namespace: str) -> tuple[str, ...]:
    """What these credentials lack to keep a pod scrapeable: a note, nothing is refused for it."""
    denied = [deed for deed, is_allowed in (await review(api, _deeds(namespace))).items() if is_allowed is False]
    return tuple(f"scrapers that follow endpoints lose what is cut: these credentials may not {one}" for one in denied)


def _deeds(namespace: str) -> tuple[Deed, ...]:
    return (Deed("create", "services", namespace),)


async def _found(api: Api, namespace: str) -> Service | None:
    try:
        return service.decode(await api.get(SERVICES, DRAINING_SERVICE, namespace))
    except ApiError as error:
        if not error.is_not_found:
            raise
        return None
