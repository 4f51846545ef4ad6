"""A pod that somebody else ends: waited for, never hindered, and what its gate said of it."""

from __future__ import annotations

import asyncio

import msgspec

from tidegate.kube.api import PODS, JsonObject, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.reflector import Reflector
from tidegate.model.decode import Malformed
from tidegate.model.names import DrainResult, Ending, decode_result
from tidegate.model.pod import Pod
from tidegate.vtime import Nursery

HAND = "ended by another's hand"


async def followed(client: KubeClient, pod: Pod, seconds: float) -> DrainResult:
    """Wait until ``pod`` (this uid of it) is gone: ``verified`` only where its gate says so.

    ``seconds``: for how long, then it is ``timed-out``. Never raises ``KubeError``: the watch goes on.
    """
    gone, last = asyncio.Event(), dict(pod.annotations)

    def seen(old: JsonObject | None, new: JsonObject | None) -> None:
        del old
        if new is None or new["metadata"].get("uid") != pod.uid:
            gone.set()
        else:
            last.update(new["metadata"].get("annotations") or {})

    watch = Reflector(client, PODS, Selection(pod.namespace, fields=f"metadata.name={pod.name}"))
    watch.subscribe(seen)
    async with Nursery() as nursery:
        nursery.start(watch.run(), name=f"follow {pod}")
        is_gone = True
        try:
            async with asyncio.timeout(seconds):
                await watch.synced()
                if not watch.objects:
                    gone.set()
                await gone.wait()
        except TimeoutError:
            is_gone = False
        nursery.cancel()
    return _told(last) if is_gone else DrainResult(Ending.TIMED_OUT, "somebody deleted it, and it has not ended yet")


def _told(annotations: dict[str, str]) -> DrainResult:
    try:
        result = decode_result(annotations)
    except Malformed as error:
        return DrainResult(Ending.BYPASSED, f"{HAND}: {error}")
    if result is None:
        return DrainResult(Ending.BYPASSED, f"{HAND}, and no gate said that it was drained")
    if result.result is Ending.VERIFIED:
        return msgspec.structs.replace(result, reason=f"{HAND}, held by its gate until it was drained")
    return msgspec.structs.replace(result, reason=f"{HAND}: {result.reason or result.result.value}")
