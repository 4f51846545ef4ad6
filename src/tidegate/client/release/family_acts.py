"""What is done to a family: Deployments made, scaled, labelled, retired; Services made and changed; autoscalers moved.

Each performer makes one write, tested on uid and resourceVersion (or a create, whose name is its test). Killed before
or after it, the next look finds what is left to do. LABEL takes many: each call makes the next one.
"""

from __future__ import annotations

import asyncio
from typing import Any

from tidegate import vtime
from tidegate.client.lease import RENEW_SECONDS
from tidegate.client.release.book import RELEASE_LABEL
from tidegate.client.release.family import REPLICAS, ROUND_LABEL, deployments_of, edition_of, replicasets_of
from tidegate.client.release.ground import Failed, Ground, check_kept
from tidegate.client.release.labels import Labelling, half_labelled, put
from tidegate.client.release.look import Sight
from tidegate.engine import act
from tidegate.engine.act import Step as Change
from tidegate.engine.act import changes_of, write
from tidegate.engine.owners import controller_uid
from tidegate.kube.api import DEPLOYMENTS, HORIZONTALPODAUTOSCALERS, SERVICES, Deletion, JsonObject
from tidegate.kube.errors import ApiError
from tidegate.model.names import MANAGED_BY, TIDEGATE, PrepareRecord
from tidegate.release import template as templates
from tidegate.release.plan import Step
from tidegate.release.scene import REVISION_LABEL, WORKLOAD_LABEL, key_of
from tidegate.traffic.preparation import PAUSED

_KEPT = ("minReadySeconds", "strategy", "revisionHistoryLimit", "progressDeadlineSeconds")
"""Of the user's own Deployment, in every further one."""


async def create(ground: Ground, sight: Sight, step: Step) -> None:
    """The Deployment of a revision (``step.subject``) with ``count`` pods of the template that is asked for.

    Its pods bear the labels of the template, its revision and its workload; its selector is the user's own Deployment's
    and the label that tells the revisions apart. ``detail``: ``name`` (else WORKLOAD-rN). It bears no label of the
    user's Deployment, nor an annotation: by those a GitOps manager would take it for its own, and prune it.
    """
    base, spec = _base(sight), sight.entry.spec
    key, name = key_of(spec), str(step.detail.get("name") or f"{spec.workload}-{step.subject}")
    family = {WORKLOAD_LABEL: spec.workload, REVISION_LABEL: step.subject}
    template = templates.labelled(sight.template, family)
    value = template["metadata"]["labels"].get(key, "")
    if not value:
        raise Failed(f"$.spec.bluegreen.by: the new template gives its pods no label {key}")
    selector = dict(base["spec"]["selector"])
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), key: value}
    made = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "namespace": sight.entry.namespace,
            "labels": {**family, MANAGED_BY: TIDEGATE, RELEASE_LABEL: spec.workload},
        },
        "spec": {
            **{one: base["spec"][one] for one in _KEPT if one in base["spec"]},
            "replicas": step.count or 0,
            "selector": selector,
            "template": template,
        },
    }
    try:
        check_kept(template, await ground.client.create(DEPLOYMENTS, made, sight.entry.namespace))
    except ApiError as error:
        if not error.is_conflict:
            raise
        found = await ground.client.get(DEPLOYMENTS, name, sight.entry.namespace)
        labels = found["metadata"].get("labels") or {}
        if {one: labels.get(one) for one in family} != family:
            raise Failed(f"deployment/{name} is there already, and is not of this release") from error
        check_kept(template, found)


async def scale(ground: Ground, sight: Sight, step: Step) -> None:
    """``count`` replicas for a revision. ``detail``: ``of`` is how many the workload is to have; it is written beside a
    lesser count, so that a number that somebody else sets is known for theirs."""
    obj, count = _deployment(sight, step.subject), step.count or 0
    of = int(step.detail.get("of", count))
    mark = {REPLICAS: f"{count} of {of}" if count < of else None}
    change: Change = {"op": "add", "path": "/spec/replicas", "value": count}
    notes = obj["metadata"].get("annotations")
    marks = changes_of("/metadata/annotations", notes, mark) if count < of or REPLICAS in (notes or {}) else []
    await write(ground.client, DEPLOYMENTS, obj, [change, *marks])


async def retire(ground: Ground, sight: Sight, step: Step) -> None:
    """Delete the revision's Deployment; its ReplicaSets, all empty, go with it."""
    obj = _deployment(sight, step.subject)
    metadata = obj["metadata"]
    if metadata["name"] == sight.entry.spec.workload or (metadata.get("labels") or {}).get(MANAGED_BY) != TIDEGATE:
        raise Failed(f"deployment/{metadata['name']} was made by no release, it is not deleted")
    options = Deletion(uid=metadata["uid"], resource_version=metadata["resourceVersion"], propagation="Background")
    await ground.client.delete(DEPLOYMENTS, metadata["name"], metadata["namespace"], options)


# --- Services ---


async def retarget(ground: Ground, sight: Sight, step: Step) -> None:
    """Keys of a Service's selector (None takes one out), and in the same write the round it is of."""
    obj = _service(sight, step.subject)
    changes = changes_of("/spec/selector", obj["spec"].get("selector"), step.selector or {})
    mark = {ROUND_LABEL: str(step.detail["round"])} if "round" in step.detail else {}
    await write(
        ground.client, SERVICES, obj, changes + changes_of("/metadata/labels", obj["metadata"].get("labels"), mark)
    )


async def expose(ground: Ground, sight: Sight, step: Step) -> None:
    """A Service of the release that selects ``selector``, the whole of it; without one, it goes.

    ``detail``: ``of`` is the Service whose ports it has and with which it goes; ``is_rehearsal``: headless and without
    a port, so that no data plane routes it. A preview that the user made keeps all but its selector.
    """
    obj = sight.services.get(step.subject)
    if step.selector is None:
        if obj is not None and (obj["metadata"].get("labels") or {}).get(MANAGED_BY) == TIDEGATE:
            metadata = obj["metadata"]
            options = Deletion(uid=metadata["uid"], resource_version=metadata["resourceVersion"])
            await ground.client.delete(SERVICES, step.subject, metadata["namespace"], options)
        return
    selector = {key: value for key, value in step.selector.items() if value is not None}
    if obj is None:
        await ground.client.create(SERVICES, _new_service(sight, step, selector), sight.entry.namespace)
        return
    # A label that is new each time: its slices show by it that the selector of now is known.
    mark = {ROUND_LABEL: obj["metadata"]["resourceVersion"]}
    changes: list[Change] = [{"op": "add", "path": "/spec/selector", "value": selector}]
    await write(
        ground.client, SERVICES, obj, changes + changes_of("/metadata/labels", obj["metadata"].get("labels"), mark)
    )


def _new_service(sight: Sight, step: Step, selector: dict[str, str]) -> JsonObject:
    of = _service(sight, str(step.detail["of"]))
    metadata = of["metadata"]
    spec: dict[str, Any] = {"selector": selector}
    if step.detail.get("is_rehearsal"):
        spec["clusterIP"] = "None"
    else:
        kept = ("name", "port", "targetPort", "protocol", "appProtocol")
        spec["ports"] = [{key: one[key] for key in kept if key in one} for one in of["spec"].get("ports") or ()]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": step.subject,
            "namespace": sight.entry.namespace,
            "labels": {
                WORKLOAD_LABEL: sight.entry.spec.workload,
                RELEASE_LABEL: sight.entry.spec.workload,
                MANAGED_BY: TIDEGATE,
            },
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Service", "name": metadata["name"], "uid": metadata["uid"]}
            ],
        },
        "spec": spec,
    }


# --- autoscalers ---


async def autoscale(ground: Ground, sight: Sight, step: Step) -> None:
    """The user's autoscaler (``detail``: ``autoscaler``) goes on with the pods of ``step.subject``.

    It is moved, not copied: the selector of the user's own Deployment selects the pods of every revision, and of two
    autoscalers whose selectors share a pod neither scales (AmbiguousSelector, podautoscaler/horizontal.go 1.36).
    """
    obj = sight.autoscalers.get(str(step.detail["autoscaler"]))
    if obj is None:
        return
    name = _deployment(sight, step.subject)["metadata"]["name"]
    change: Change = {"op": "replace", "path": "/spec/scaleTargetRef/name", "value": name}
    await write(ground.client, HORIZONTALPODAUTOSCALERS, obj, [change])


# --- labels in place ---


async def label(ground: Ground, sight: Sight, step: Step) -> None:
    """The next write on the way to a label on everything that the revision's Deployment makes; no pod is restarted.

    The way that ``prepare --in-place`` takes, with its record on the Deployment: killed there, it is paused, and says
    why, until the next engine or ``prepare --abort`` comes.
    """
    obj = _deployment(sight, step.subject)
    own = replicasets_of(sight, obj)
    asked = half_labelled(obj, own, sight.services.values())
    if asked is None:
        name, edition = obj["metadata"]["name"], edition_of(sight, step.subject, obj)
        if (obj["metadata"].get("labels") or {}).get(REVISION_LABEL) is None and name != sight.entry.spec.workload:
            await _join(ground, sight, obj, step.subject)
            return
        key = key_of(sight.entry.spec)
        if not edition.mark:
            raise Failed(f"$.spec.bluegreen.by: deployment/{name} gives its pods no label {key}")
        record = PrepareRecord(
            token=sight.entry.uid or name,
            phase=PAUSED,
            key=key,
            value=edition.mark,
            in_place=True,
            by=ground.identity.by,
            at=act.instant(vtime.now()),
            service=str(step.detail["service"]),
        )
        asked = Labelling(sight.entry.namespace, name, record)
    uids = {one["metadata"]["uid"] for one in own}
    pods = {name: one for name, one in sight.pods.items() if controller_uid(one) in uids}
    # The lease is to stand meanwhile: what is left is the next turn's.
    await put(ground.client, asked, pods, asyncio.get_running_loop().time() + RENEW_SECONDS)


async def _join(ground: Ground, sight: Sight, obj: JsonObject, revision: str) -> None:
    """A Deployment of the user's own becomes one of the family."""
    labels = {WORKLOAD_LABEL: sight.entry.spec.workload, REVISION_LABEL: revision}
    await write(ground.client, DEPLOYMENTS, obj, changes_of("/metadata/labels", obj["metadata"].get("labels"), labels))


# --- shared ---


def _base(sight: Sight) -> JsonObject:
    if sight.deployment is None:
        raise Failed(f"there is no deployment/{sight.entry.spec.workload}")
    return sight.deployment


def _deployment(sight: Sight, revision: str) -> JsonObject:
    named = {one.revision: one.deployment for one in sight.scene.editions}
    found = deployments_of(sight).get(revision) or sight.deployments.get(named.get(revision, ""))
    if found is None:
        raise Failed(f"there is no Deployment of revision {revision}")
    return found


def _service(sight: Sight, name: str) -> JsonObject:
    found = sight.services.get(name)
    if found is None:
        raise Failed(f"there is no svc/{name}")
    return found
