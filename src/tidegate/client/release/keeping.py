"""What keeps each drain of a release, by name: the coordinator's word about those in flight.

A pod's own record says so only once its drain has ended, and a rollout that waits behind gates has no other reason to
tell than theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from tidegate.client.release.look import Sight
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import KubeError
from tidegate.observers.proxied import ProxiedCoordinator

ASK_SECONDS = 2.0
Keeping = Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]
"""Pod's uid -> who has not let go of it ("node-2: ..."), and why its source is not clean."""


async def keeping_of(client: KubeClient, sight: Sight) -> Keeping:
    """Of the pods of ``sight`` that are on their way out. Never raises: who cannot be asked says nothing."""
    leaving = {one.uid for pods in sight.pods_of.values() for one in pods if one.is_terminating}
    if not leaving:
        return {}
    try:
        async with asyncio.timeout(ASK_SECONDS):
            told = (await ProxiedCoordinator(client).status()).get("drains", ())
        return {one["uid"]: _names(one) for one in told if one["uid"] in leaving}
    except (KubeError, TimeoutError, KeyError, TypeError, AttributeError):
        return {}


def _names(drain: Mapping[str, object]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    stragglers, reasons = drain.get("stragglers"), drain.get("reasons")
    names = tuple(f"{one['node']}: {one['detail']}" for one in stragglers) if isinstance(stragglers, list) else ()
    return names, tuple(map(str, reasons)) if isinstance(reasons, list) else ()
