"""Labels put in place on all that a Deployment makes, and the end of that where whoever began it went.

The Deployment is paused meanwhile, with a record that says why: killed there, its ReplicaSet gives a label that its own
template does not, and whoever resumed it as it is would begin a rollout. Labels are only ever added, and no Service
asks for one before all pods have it, so the way on is safe from everywhere; the way back is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from tidegate.client.prepare import writes
from tidegate.client.prepare.scene import About, Sight, annotations_of, member_of, record_of
from tidegate.client.prepare.scene import look as look_prepared
from tidegate.client.release.ground import Failed, is_stale
from tidegate.engine.owners import controller_uid
from tidegate.kube.api import DEPLOYMENTS, PODS, REPLICASETS, SERVICES, Api, JsonObject, Selection
from tidegate.kube.errors import ApiError
from tidegate.model import pod
from tidegate.model.decode import Malformed
from tidegate.model.names import PREPARED, PrepareRecord
from tidegate.release.scene import WORKLOAD_LABEL
from tidegate.traffic.preparation import Act, Move, Wish, label_move

LOOK_SECONDS = 0.2
FREE_SECONDS = 30.0
"""For one Deployment. Its controller is waited for several times, which takes well below a second each."""


@dataclass(frozen=True, slots=True)
class Labelling:
    """What is put on whose pods. ``record`` is what stands on the Deployment while it is paused for it."""

    namespace: str
    deployment: str
    record: PrepareRecord

    @property
    def wish(self) -> Wish:
        return Wish(self.record.key, self.record.value, in_place=True)


async def put(client: Api, asked: Labelling, own: Mapping[str, JsonObject], until: float) -> Move | None:
    """Make the next move, as many writes as it has until ``until`` (of the loop's clock); None once all is labelled.

    ``own`` are the Deployment's pods, by name. Raises ``KubeError``; a conflict where something has changed.
    """
    name, key = asked.deployment, asked.record.key
    seen = await look_prepared(client, About(asked.namespace, asked.record.service, (name,)), key)
    seen.pods = {**seen.pods, **own}
    members = tuple(member_of(pod.decode(one), f"Deployment/{name}", key) for one in own.values())
    seen.scene = replace(seen.scene, members=members)
    move = label_move(seen.scene, asked.wish)
    if move is None or move.act is Act.WAIT:
        return move
    for one in move.names or ("",):
        await _write(client, seen, replace(move, names=(one,) if one else ()), asked)
        if asyncio.get_running_loop().time() >= until:
            break
    return move


async def _write(client: Api, seen: Sight, move: Move, asked: Labelling) -> None:
    match move.act:
        case Act.PAUSE:
            await writes.pause(client, seen, move.subject, asked.record)
        case Act.LABEL_REVISIONS:
            await writes.label_edition(client, seen, move.names[0], asked.wish)
        case Act.LABEL_PODS:
            await writes.label_pod(client, seen, move.names[0], asked.wish)
        case Act.LABEL_TEMPLATE:
            await writes.label_template(client, seen, move.subject, asked.wish)
        case Act.ANNOUNCE:
            await writes.announce(client, seen, move.subject)
        case Act.RESUME:
            await writes.resume(client, seen, move.subject)
        case Act.CLEAN:
            await writes.clean_edition(client, seen, move.names[0])
        case _:
            raise Failed(f"{move.act.value}: {move.reason}")


# --- left half-way ---


def half_labelled(
    deployment: JsonObject, own: Iterable[JsonObject], services: Iterable[JsonObject]
) -> Labelling | None:
    """What a release began to put on it and has not come to the end of; ``own`` are its ReplicaSets.

    None where it is a ``prepare`` of a Service: that bears the same record, and the verb has a way on and a way back.
    """
    marked = [one for one in (deployment, *own) if PREPARED in annotations_of(one)]
    if not marked:
        return None
    try:
        record = record_of(marked[0])
    except Malformed:
        return None
    if record is None or any(PREPARED in annotations_of(one) and _token(one) == record.token for one in services):
        return None
    metadata = deployment["metadata"]
    return Labelling(metadata["namespace"], metadata["name"], record)


def _token(obj: JsonObject) -> str:
    try:
        record = record_of(obj)
    except Malformed:
        return ""
    return record.token if record is not None else ""


async def free_labellings(client: Api, namespace: str = "", workload: str = "") -> dict[str, str]:
    """Brings to its end what a release has left half labelled: Deployment (namespace/name) -> "", or why it was not.

    For an end of Tidegate's work on them, as ``free_gatings``: nobody comes back to finish it. ``workload``: of that
    one alone (and what a release made for it), "" for all. Raises ``KubeError``.
    """
    space = Selection(namespace)
    deployments = (await client.list(DEPLOYMENTS, space)).items
    if workload:
        deployments = [one for one in deployments if _is_of(workload, one)]
    made, services = [(await client.list(kind, space)).items for kind in (REPLICASETS, SERVICES)]
    told: dict[str, str] = {}
    for one in deployments:
        beside = [obj for obj in services if obj["metadata"]["namespace"] == one["metadata"]["namespace"]]
        half = half_labelled(one, _of(one["metadata"]["uid"], made), beside)
        if half is not None:
            told[f"{half.namespace}/{half.deployment}"] = await _finished(client, half)
    return told


async def _finished(client: Api, half: Labelling) -> str:
    """Why it is not, "" where it is. Raises ``KubeError``."""
    loop = asyncio.get_running_loop()
    until, last = loop.time() + FREE_SECONDS, "nothing was to be done"
    while loop.time() < until:
        try:
            move = await put(client, half, await _pods_of(client, half), until)
        except ApiError as error:  # its controllers write, too
            if not is_stale(error):
                raise
            if error.is_not_found and not await _is_there(client, half):
                return ""
            last = str(error)
        else:
            if move is None:
                return ""
            last = move.reason
        await asyncio.sleep(LOOK_SECONDS)
    return f"paused, half of it with its label, after {FREE_SECONDS:g} s: {last}"


async def _pods_of(client: Api, half: Labelling) -> dict[str, JsonObject]:
    space = Selection(half.namespace)
    deployment = await client.get(DEPLOYMENTS, half.deployment, half.namespace)
    made = _of(deployment["metadata"]["uid"], (await client.list(REPLICASETS, space)).items)
    uids = {one["metadata"]["uid"] for one in made}
    pods = (await client.list(PODS, space)).items
    return {one["metadata"]["name"]: one for one in pods if controller_uid(one) in uids}


async def _is_there(client: Api, half: Labelling) -> bool:
    try:
        await client.get(DEPLOYMENTS, half.deployment, half.namespace)
    except ApiError as error:
        if not error.is_not_found:
            raise
        return False
    return True


def _is_of(workload: str, deployment: JsonObject) -> bool:
    """Whether it is the user's own Deployment of that name, or of its family."""
    metadata = deployment["metadata"]
    return workload in (metadata["name"], (metadata.get("labels") or {}).get(WORKLOAD_LABEL))


def _of(uid: str, made: Iterable[JsonObject]) -> list[JsonObject]:
    return [one for one in made if controller_uid(one) == uid]
