"""Load balancers that send to new pods late, and ways to release that do not wait for them: said before it begins."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tidegate.client.release.look import Sight
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import KubeError
from tidegate.observers.proxied import ProxiedCoordinator, is_installed
from tidegate.release.spec import Spec


async def notes(client: KubeClient, sight: Sight, services: Iterable[str]) -> list[str]:
    """A sentence for each of ``services`` (of the release's namespace) whose pods are registered one by one, where the
    strategy takes old ones away by itself. None where nobody can be asked: the release says that of its own."""
    spec = sight.entry.spec
    if not _takes_at_once(spec, sight):
        return []
    names = tuple(f"{sight.entry.namespace}/{one}" for one in services)
    try:
        if not names or not await is_installed(client):
            return []
        told = await ProxiedCoordinator(client).status(names)
    except KubeError:
        return []
    return [
        f"{', '.join(late)} may send to new pods of svc/{name.partition('/')[2]} late: {_WAY_OUT[spec.strategy]}"
        for name in names
        if (late := _late(told, name))
    ]


def _late(told: dict[str, Any], service: str) -> list[str]:
    return [str(one["name"]) for one in told.get("observers") or () if service in (one.get("registers") or ())]


def _takes_at_once(spec: Spec, sight: Sight) -> bool:
    """A rollout in place goes by readiness, which a readiness gate of the load balancer's controller is part of; a flip
    drops the old pods as it adds the new ones."""
    pod = (sight.template or {}).get("spec") or {}
    if spec.strategy == "rolling":
        return not pod.get("readinessGates")
    return spec.strategy == "rainbow" or (spec.strategy == "bluegreen" and not spec.bluegreen.together)


_WAY_OUT = {
    "rolling": "rolling goes by readiness, so give the pods its controller's readiness gate, or release by canary",
    "bluegreen": "the flip takes the old ones away from it at once; --together keeps them until it does",
    "rainbow": "the flip takes the old ones away from it at once; a canary by the ratio of pods keeps them until then",
}
