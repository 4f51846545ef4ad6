"""What keeping a pod takes, whichever verb keeps it: its labels held level, and its owner's other pods counted."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec

from tidegate.client.holding import Holding
from tidegate.client.plan import ISOLATED
from tidegate.kube.api import PODS, Api, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, KubeError
from tidegate.model import pod
from tidegate.model.names import DrainRecord, decode_drain
from tidegate.model.pod import Pod
from tidegate.model.workload import Workload

LOOK_SECONDS = 0.2
TRIES = 20


async def hold(
    client: KubeClient,
    holding: Holding,
    labels: Mapping[str, str | None],
    state: str,
    ours: Mapping[str, str | None] | None = None,
) -> bool:
    """Look at the pod, and see to it that ``labels`` stand on it with a record in ``state``; of these ``ours`` differ
    from before (all, unless told otherwise).

    False once it is on its way out. Raises ``HeldByOther``, ``KubeError``.
    """
    for _ in range(TRIES):
        try:
            holding.seen.update(await client.get(PODS, holding.pod.name, holding.pod.namespace))
        except ApiError as error:
            if not error.is_not_found:
                raise
            holding.seen.update(None)
        if holding.seen.is_gone or holding.pod.is_terminating:
            return False
        holding.check()
        changed = dict(labels if ours is None else ours)
        apart = changed if state == ISOLATED else {}
        record = msgspec.structs.replace(holding.record, state=state, changed=changed, isolated=apart)
        stands = all(holding.pod.labels.get(key) == value for key, value in labels.items())
        if (stands and _is_as(holding, record)) or await holding.write(labels, record):
            return True
        await asyncio.sleep(LOOK_SECONDS)
    raise KubeError(f"{holding.pod} changes too often to be labelled: try again")


def _is_as(holding: Holding, record: DrainRecord) -> bool:
    """Whether the pod's record says so already, and that we are at work on it."""
    found = decode_drain(holding.pod.annotations)
    if found is None or found.holder != record.holder:
        return False
    return (found.state, found.changed, found.verb, found.peers) == (
        record.state,
        record.changed,
        record.verb,
        record.peers,
    )


async def owned_by(api: Api, owner: Workload) -> list[Pod]:
    """The pods that count as the owner's: not those on their way out, nor those it is about to let go of."""
    found = [pod.decode(obj) for obj in (await api.list(PODS, Selection(owner.namespace))).items]
    mine = [one for one in found if one.owner is not None and one.owner.uid == owner.uid]
    mine = [one for one in mine if owner.selector is None or owner.selector.matches(one.labels)]
    return [one for one in mine if not one.is_terminating and not one.is_finished]


def newness(one: Pod) -> tuple[str, str]:
    """Orders pods by when they were made, to the second, then by name."""
    return (one.created_at.isoformat() if one.created_at is not None else "", one.name)
