"""The end of a story: the sky is clear, and everything that was begun is brought to its end. What is left then is a
finding: verbs may be killed anywhere, and the next run must be able to finish."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator

from tidegate.kube.api import DEPLOYMENTS, NODES, PODS, REPLICASETS, SERVICES, Api, JsonObject, Selection
from tidegate.model.names import (
    CORDONED,
    DRAIN_RUN,
    DRAINING_SERVICE,
    HELD,
    PREPARED,
    RESERVATIONS,
    SYSTEM_NAMESPACE,
    decode_drain,
    decode_prepare,
)
from tidegate.rehearse.spectator import is_ready
from tidegate.rehearse.verbs.deeds import Shell, Wish
from tidegate.rehearse.verbs.people import People
from tidegate.rehearse.verbs.scene import NS, Scene

ROUNDS = 6
REST_SECONDS = 20.0
"""Longer than a lease: a process of another machine is believed to be alive for that long."""


async def tidy(api: Api, shell: Shell, people: People, scene: Scene, rng: random.Random) -> list[str]:
    """Run what is still to be done until nothing is; what stays then, a sentence each."""
    await _observed(api)
    await asyncio.sleep(REST_SECONDS)
    tried: list[str] = []
    for number in range(ROUNDS):
        async for wish in _undone(api, people, rng, is_last_resort=number % 2 == 1):
            deed = await shell.type(wish)
            tried.append(str(deed))
        for name in people.cordoned:
            await people.uncordon(name)
        await asyncio.sleep(8.0)
        left = [one async for one in _leftovers(api, scene, people)]
        if not left:
            return []
    return [*left, *(f"tried: {one}" for one in tried[-3:])]


async def _observed(api: Api) -> None:
    """Until every agent and the coordinator run again (their containers back off after a kill)."""
    for _ in range(600):
        pods = (await api.list(PODS, Selection(SYSTEM_NAMESPACE))).items
        if all(map(is_ready, pods)):
            return
        await asyncio.sleep(0.5)


async def _undone(api: Api, people: People, rng: random.Random, is_last_resort: bool) -> AsyncIterator[Wish]:
    """``is_last_resort``: what could not be restored is drained."""
    for obj in (await api.list(SERVICES, Selection(NS))).items:
        record = decode_prepare(obj["metadata"].get("annotations") or {})
        if record is not None and (record.phase != "prepared" or record.holder):
            name = obj["metadata"]["name"]
            is_abort = record.phase == "aborting" or rng.random() < 0.5
            yield Wish("prepare", name, people.options(90.0), people.deployments_of(name), record.in_place, is_abort)
    for obj in (await api.list(DEPLOYMENTS, Selection(NS))).items:
        annotations = obj["metadata"].get("annotations") or {}
        record = decode_prepare(annotations)
        if record is not None and record.service:
            name = record.service
            yield Wish("prepare", name, people.options(90.0), people.deployments_of(name), record.in_place)
    for obj in await _pods(api):
        metadata, record_ = obj["metadata"], decode_drain(obj["metadata"].get("annotations") or {})
        is_held = HELD in (metadata.get("labels") or {})
        if is_held or (record_ is not None and record_.mode == "label" and record_.state != "RESTORED"):
            is_drained = is_last_resort or rng.random() < 0.4
            yield Wish("drain" if is_drained else "restore", metadata["name"], people.options(90.0))
    async for name in _reserved(api):
        yield Wish("cut", name, people.options(90.0))  # killed between its reservation and its cut: run it again
    names = [obj["metadata"]["name"] for obj in (await api.list(SERVICES, Selection(NS))).items]
    if DRAINING_SERVICE in names and not any(HELD in one["metadata"]["labels"] for one in await _pods(api)):
        yield Wish("drain", "gone", people.options(90.0))  # a held pod was deleted by hand: any verb takes that off
    marked = {(obj["metadata"].get("annotations") or {}).get(DRAIN_RUN, "") for obj in await _pods(api)}
    for subject in sorted(marked - {""}):
        yield Wish("drain-deploy", subject.partition(" ")[0].partition("/")[2], people.options(90.0))


async def _reserved(api: Api) -> AsyncIterator[str]:
    """Pods that are counted out of a floor and that nobody holds."""
    uids = set[str]()
    for obj in (await api.list(SERVICES, Selection(NS))).items:
        uids |= json.loads((obj["metadata"].get("annotations") or {}).get(RESERVATIONS, "{}")).keys()
    for obj in await _pods(api):
        if obj["metadata"]["uid"] in uids and HELD not in obj["metadata"]["labels"]:
            yield obj["metadata"]["name"]


async def _pods(api: Api) -> list[JsonObject]:
    found = (await api.list(PODS, Selection(NS))).items
    return [one for one in found if "deletionTimestamp" not in one["metadata"]]


async def _leftovers(api: Api, scene: Scene, people: People) -> AsyncIterator[str]:
    for obj in await _pods(api):
        metadata = obj["metadata"]
        annotations, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
        for key in sorted(labels):
            if key.startswith("tidegate.dev/") or labels[key].startswith("tidegate-"):
                yield f"pod/{metadata['name']} has the label {key}={labels[key]}"
        record = decode_drain(annotations)
        if record is not None and (record.state != "RESTORED" or record.holder):
            yield f"pod/{metadata['name']} has a record: {record.verb} {record.state} {record.holder}"
        if DRAIN_RUN in annotations:
            yield f"pod/{metadata['name']} is marked: {annotations[DRAIN_RUN]}"
    for obj in (await api.list(SERVICES, Selection(NS))).items:
        metadata = obj["metadata"]
        annotations = metadata.get("annotations") or {}
        if metadata["name"] == DRAINING_SERVICE:
            yield f"svc/{DRAINING_SERVICE} is there, and no pod is held"
        elif metadata["name"] not in scene.services:
            yield f"svc/{metadata['name']} is there"
        for uid, token in json.loads(annotations.get(RESERVATIONS, "{}")).items():
            # One of a pod that is no more counts for nothing.
            found = next((one for one in await _pods(api) if one["metadata"]["uid"] == uid), None)
            if found is not None:
                yield f"svc/{metadata['name']} has a reservation of pod/{found['metadata']['name']}, token {token}"
        prepared = decode_prepare(annotations)
        if prepared is not None and (prepared.phase != "prepared" or prepared.holder):
            yield f"svc/{metadata['name']} is {prepared.phase} by {prepared.holder or 'nobody'}"
    async for left in _owners(api, scene):
        yield left
    for obj in (await api.list(NODES)).items:
        name = obj["metadata"]["name"]
        if (obj.get("spec") or {}).get("unschedulable"):
            yield f"node/{name} is cordoned"
        if CORDONED in (obj["metadata"].get("annotations") or {}) and name not in people.cordoned:
            yield f"node/{name} has {CORDONED}"


async def _owners(api: Api, scene: Scene) -> AsyncIterator[str]:
    """Deployments as they were asked to be, and nothing of ours on them."""
    pods = await _pods(api)
    for obj in (await api.list(DEPLOYMENTS, Selection(NS))).items:
        name, spec = obj["metadata"]["name"], obj["spec"]
        if spec["replicas"] != scene.replicas[name]:
            yield f"deploy/{name} has {spec['replicas']} replicas for {scene.replicas[name]}"
        if PREPARED in (obj["metadata"].get("annotations") or {}) or spec.get("paused"):
            yield f"deploy/{name} is paused or has a record of prepare"
        sets = (await api.list(REPLICASETS, Selection(NS, f"app={name}"))).items
        uids = {one["metadata"]["uid"] for one in sets}
        owned = [
            one for one in pods
            if any(owner["uid"] in uids for owner in one["metadata"].get("ownerReferences") or ()) and is_ready(one)
        ]  # fmt: skip
        made_with = {one["metadata"]["uid"]: one["spec"]["template"]["metadata"]["labels"] for one in sets}
        for one in owned:
            lacks = made_with[one["metadata"]["ownerReferences"][0]["uid"]].items() - one["metadata"]["labels"].items()
            if lacks:
                yield f"pod/{one['metadata']['name']} is back without {sorted(lacks)}, which its owner gives every pod"
        if len(owned) != scene.replicas[name]:
            yield f"deploy/{name} owns {len(owned)} ready pods and wants {scene.replicas[name]}"
    loose = [one["metadata"]["name"] for one in pods if not one["metadata"].get("ownerReferences")]
    for name in loose:
        yield f"pod/{name} has no owner"
