"""The writes of ``prepare``: JSON patches, each tested on uid and resourceVersion, refused where anything changed."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from tidegate.client.prepare.scene import Sight, annotations_of, rehearsal_name, template_labels
from tidegate.engine.act import Step, changes_of, write
from tidegate.kube.api import DEPLOYMENTS, PODS, REPLICASETS, SERVICES, Api, Deletion, JsonObject
from tidegate.model.names import PREPARED, PREPARED_REVISION, PrepareRecord, encode_prepare
from tidegate.traffic.preparation import ABORTING, PAUSED, RESUMING, Wish

GIVEN, KEPT = "given", "kept"
"""What our annotation on an older template says: whether the label is ours."""


async def write_service(
    api: Api, service: JsonObject, record: PrepareRecord | None, selector: Mapping[str, str | None] | None = None
) -> JsonObject:
    """The record (None takes it off), and in the same write a change of the selector.

    With a selector of before it gets a label too, a new one each time: its EndpointSlices show when that is known.
    """
    changes = encode_prepare(record) if record is not None else {PREPARED: None}
    labels, mark = service["metadata"].get("labels") or {}, service["metadata"]["resourceVersion"]
    steps: list[Step] = []
    if any(value is None for value in (selector or {}).values()):
        steps = changes_of("/metadata/labels", labels, {PREPARED: mark})
    elif selector or record is None:
        steps = changes_of("/metadata/labels", labels, {PREPARED: None})
    elif record.phase == ABORTING and PREPARED not in labels:
        steps = changes_of("/metadata/labels", labels, {PREPARED: mark})
    steps += changes_of("/metadata/annotations", service["metadata"].get("annotations"), changes)
    steps += changes_of("/spec/selector", service["spec"].get("selector"), selector or {})
    return await write(api, SERVICES, service, steps)


async def rehearse(api: Api, service: JsonObject, token: str, wish: Wish) -> None:
    """A Service that nobody asks, with the selector to come: headless and without a port, so that no data plane routes
    it. It goes with the Service it is about."""
    metadata = service["metadata"]
    owner = {"apiVersion": "v1", "kind": "Service", "name": metadata["name"], "uid": metadata["uid"]}
    await api.create(
        SERVICES,
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": rehearsal_name(token),
                "namespace": metadata["namespace"],
                "labels": {PREPARED: token},
                "ownerReferences": [owner],
            },
            "spec": {"clusterIP": "None", "selector": {**service["spec"]["selector"], wish.key: wish.value}},
        },
        metadata["namespace"],
    )


async def dismiss(api: Api, rehearsal: JsonObject) -> None:
    metadata = rehearsal["metadata"]
    await api.delete(SERVICES, metadata["name"], metadata["namespace"], Deletion(uid=metadata["uid"]))


async def label_pod(api: Api, sight: Sight, name: str, wish: Wish) -> None:
    obj = sight.pods[name]
    changes = {wish.key: None if wish.is_abort else wish.value}
    await write(api, PODS, obj, changes_of("/metadata/labels", obj["metadata"].get("labels"), changes))


async def label_edition(api: Api, sight: Sight, name: str, wish: Wish) -> None:
    """Label a ReplicaSet's template, and mark it where it is not the current one: it must equal no other."""
    obj = sight.editions[name]
    edition = next(one for subject in sight.scene.subjects for one in subject.editions if one.name == name)
    metadata = obj["spec"]["template"].get("metadata") or {}
    if wish.is_abort:
        label: dict[str, str | None] = {} if edition.mark == KEPT else {wish.key: None}
        mark: dict[str, str | None] = {PREPARED_REVISION: None}
    else:
        label = {wish.key: wish.value}
        had = edition.labels.get(wish.key) == wish.value
        mark = {} if edition.is_current else {PREPARED_REVISION: KEPT if had else GIVEN}
    place = "/spec/template/metadata"
    steps = changes_of(f"{place}/labels", metadata.get("labels"), label)
    await write(api, REPLICASETS, obj, steps + changes_of(f"{place}/annotations", metadata.get("annotations"), mark))


async def clean_edition(api: Api, sight: Sight, name: str) -> None:
    """Take the copy of our record off."""
    obj = sight.editions[name]
    await write(
        api, REPLICASETS, obj, changes_of("/metadata/annotations", obj["metadata"].get("annotations"), {PREPARED: None})
    )


async def label_template(api: Api, sight: Sight, name: str, wish: Wish) -> None:
    """The Deployment's own template; with our record there, in the same write what the controller is to copy."""
    obj = sight.deployments[name]
    changes = {wish.key: None if wish.is_abort else wish.value}
    steps = changes_of("/spec/template/metadata/labels", template_labels(obj), changes)
    if wish.is_abort:
        notes = (obj["spec"]["template"].get("metadata") or {}).get("annotations")
        steps += changes_of("/spec/template/metadata/annotations", notes, {PREPARED_REVISION: None})
    if wish.in_place:
        steps += _recorded(obj, _record(sight, name), RESUMING)
    await write(api, DEPLOYMENTS, obj, steps)


async def pause(api: Api, sight: Sight, name: str, record: PrepareRecord) -> None:
    """Pause, and say why.

    While it is paused and its ReplicaSet differs, that counts as one of the old ones, and the oldest beyond
    revisionHistoryLimit is deleted (sync.go cleanupDeployment): until it is resumed it may have one more.
    """
    obj = sight.deployments[name]
    found = next(one.record for one in sight.scene.subjects if one.name == name)
    limit = obj["spec"].get("revisionHistoryLimit")
    origin = found or msgspec.structs.replace(record, holder="", lease_until="", deployments=(), history_limit=limit)
    steps = [{"op": "add", "path": "/spec/paused", "value": True}]
    if origin.history_limit is not None:
        steps.append({"op": "add", "path": "/spec/revisionHistoryLimit", "value": origin.history_limit + 1})
    await write(api, DEPLOYMENTS, obj, steps + _recorded(obj, origin, PAUSED))


async def announce(api: Api, sight: Sight, name: str) -> None:
    """A text that stands nowhere else yet, for the Deployment controller to copy."""
    obj = sight.deployments[name]
    await write(api, DEPLOYMENTS, obj, _recorded(obj, _record(sight, name), RESUMING))


async def resume(api: Api, sight: Sight, name: str) -> None:
    """As it was: not paused, its own history limit, no record."""
    obj, record = sight.deployments[name], _record(sight, name)
    steps = changes_of("/metadata/annotations", annotations_of(obj), {PREPARED: None})
    if obj["spec"].get("paused"):
        steps.append({"op": "remove", "path": "/spec/paused"})
    if record.history_limit is not None:
        steps.append({"op": "add", "path": "/spec/revisionHistoryLimit", "value": record.history_limit})
    await write(api, DEPLOYMENTS, obj, steps)


def _record(sight: Sight, name: str) -> PrepareRecord:
    found = next(one.record for one in sight.scene.subjects if one.name == name)
    assert found is not None
    return found


def _recorded(obj: JsonObject, record: PrepareRecord, phase: str) -> list[Step]:
    following = msgspec.structs.replace(record, phase=phase, round=obj["metadata"]["resourceVersion"])
    return changes_of("/metadata/annotations", annotations_of(obj), encode_prepare(following))
