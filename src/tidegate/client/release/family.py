"""A family: the Deployments that are a workload's revisions, as they stand, and the ``Scene`` they make.

The user's own Deployment is ``r1``. Further ones bear ``tidegate.dev/workload: NAME`` and ``tidegate.dev/revision: rN``
on themselves and on their pods; those that a release made bear ``app.kubernetes.io/managed-by: tidegate`` besides. One
that a user made and a release named (``bluegreen.name``) is of the family too, and stays the user's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace

from tidegate.client.release import past
from tidegate.client.release.book import Entry
from tidegate.client.release.gate import is_half_gated, why_ungatable
from tidegate.client.release.labels import half_labelled
from tidegate.client.release.look import Sight, bare, bounds, failure_of, of_replicaset, read
from tidegate.client.release.look import look as look_rolling
from tidegate.drain.gating import CannotBeGated
from tidegate.engine.owners import controller_uid
from tidegate.kube.api import HORIZONTALPODAUTOSCALERS, Api, JsonObject, Selection
from tidegate.kube.errors import ApiError
from tidegate.model import pod
from tidegate.model.endpointslice import SERVICE_LABEL
from tidegate.model.names import MANAGED_BY, PREPARED, TIDEGATE
from tidegate.release import template as templates
from tidegate.release.scene import REVISION_LABEL, WORKLOAD_LABEL, Edition, Scene, Way, key_of

FIRST = "r1"
"""The revision that is the user's own Deployment."""
ROUND_LABEL = "tidegate.dev/release-round"
"""On a Service: the round of the release's last change of its selector. The EndpointSlice controller copies a Service's
labels onto its slices, so there it tells that the selector of that round is known."""
REPLICAS = "tidegate.dev/replicas"
"""On a Deployment whose pods were shared out (``3 of 4``): what a release set, and how many the workload is to have."""
_SLICES_BY, _CONTROLLER = "endpointslice.kubernetes.io/managed-by", "endpointslice-controller.k8s.io"


async def look(api: Api, entry: Entry, now: float, endings: Mapping[str, str]) -> Sight:
    """Everything as it stands, whichever the strategy. Raises ``KubeError``."""
    if entry.spec.strategy == "rolling":
        sight = await look_rolling(api, entry, now, endings)
        sight.problems += _serving_elsewhere(sight)
        sight.scene = replace(sight.scene, problems=tuple(sight.problems) or sight.scene.problems)
        return sight
    sight, (sight_of_autoscalers, why) = await asyncio.gather(read(api, entry), _autoscalers(api, entry.namespace))
    sight.autoscalers = sight_of_autoscalers
    sight.problems += [why] if why else []
    sight.scene = _scene(sight, now, endings)
    if entry.spec.strategy == "canary":
        from tidegate.client.release import routers

        await routers.see(api, sight)
    return sight


async def _autoscalers(api: Api, namespace: str) -> tuple[dict[str, JsonObject], str]:
    """By name, and why they cannot be read. Raises ``Unreachable``."""
    try:
        found = (await api.list(HORIZONTALPODAUTOSCALERS, Selection(namespace))).items
    except ApiError as error:
        return {}, "" if error.is_not_found else f"autoscalers: {error}"
    return {one["metadata"]["name"]: one for one in found}, ""


def _serving_elsewhere(sight: Sight) -> Iterator[str]:
    """Why a rollout in place would move nobody: the pods are another Deployment's."""
    for revision, obj in deployments_of(sight).items():
        if obj is not sight.deployment and obj["spec"].get("replicas", 1):
            back = f"`tidegate release rollback deploy/{sight.entry.spec.workload} --to {FIRST}`"
            yield (
                f"$.spec.strategy: {revision} has pods, in deployment/{obj['metadata']['name']}: go on with the "
                f"strategy that made it, or {back} and retire {revision} first"
            )


def _scene(sight: Sight, now: float, endings: Mapping[str, str]) -> Scene:
    entry, base = sight.entry, sight.deployment
    spec, status = entry.spec, entry.status
    if base is None:
        where = f"there is no deployment/{spec.workload} in namespace {entry.namespace}"
        problems = (f"$.spec.workload: {where}",)
        return Scene(now, spec, status, "", 0, 0, 0, (), problems=problems, generation=entry.generation)
    editions = tuple(_editions(sight, base))
    target = _target(sight, editions, base)
    ways = tuple(_ways(sight))
    editions = _adopted(sight, editions, target)
    sight.problems += _unmarked(sight, editions, target)
    sight.problems += _taken(sight, editions, target)
    sight.problems += [*_strangers(sight), *bare(spec, editions, target)]
    serving = _serving(editions, ways, sight)
    model = sight.deployments[serving.deployment] if serving is not None else base
    replicas = replicas_of(model)
    surge, unavailable = bounds(model, replicas)
    return Scene(
        now=now,
        spec=spec,
        status=status,
        target=target,
        replicas=replicas,
        floor=replicas - unavailable,
        surge=surge,
        editions=editions,
        ways=ways,
        template=templates.fingerprint(base["spec"]["template"]),
        endings=endings,
        problems=tuple(sight.problems),
        generation=entry.generation,
    )


def _serving(editions: tuple[Edition, ...], ways: tuple[Way, ...], sight: Sight) -> Edition | None:
    """Whom the Service selects; while it selects all of them, the one that the release began with."""
    spec = sight.entry.spec
    way = next((one for one in ways if one.name == spec.service), None)
    mark = way.selector.get(key_of(spec)) if way is not None else None
    found = next((one for one in editions if mark is not None and one.mark == mark), None)
    status = sight.entry.status
    stable = status.revision if spec.strategy == "canary" and status.phase == "done" else status.stable
    return found or next((one for one in editions if one.revision == stable), None)


def replicas_of(deployment: JsonObject) -> int:
    """How many pods the workload is to have, by the Deployment that serves: its own number, or the one beside it where
    a release shared its pods out and nobody has set another since."""
    number = int(deployment["spec"].get("replicas", 1))
    words = ((deployment["metadata"].get("annotations") or {}).get(REPLICAS) or "").split(" of ")
    is_ours = len(words) == 2 and all(one.isdigit() for one in words) and int(words[0]) == number
    return int(words[1]) if is_ours else number


def _target(sight: Sight, editions: tuple[Edition, ...], base: JsonObject) -> str:
    """The fingerprint of what is asked for; its whole template, gated, goes into the sight."""
    from tidegate.release.bluegreen import is_proven

    spec, status = sight.entry.spec, sight.entry.status
    try:
        if spec.rollback_to:
            sight.template = _template_of(sight, editions, spec.rollback_to)
        else:
            # Images are put into the template of the revision that stands, which need not be the user's own.
            is_over = status.phase == "done" or (spec.strategy == "bluegreen" and is_proven(status))
            known = {one.revision: sight.deployments[one.deployment] for one in editions}
            # That one may have been retired already, and the one that came is as asked for, so it stays the same.
            model = known.get(status.revision if is_over else status.stable) or known.get(status.revision) or base
            sight.template = templates.wanted(spec, model["spec"]["template"])
        target = templates.fingerprint(sight.template)
        sight.template = templates.gated(sight.template)
    except CannotBeGated as error:
        if spec.ungated == "drain":
            sight.problems.append(str(error))
        target = templates.fingerprint(sight.template)
    except ValueError as error:
        sight.problems.append(str(error))
        target = status.fingerprint
    return target


def _template_of(sight: Sight, editions: tuple[Edition, ...], revision: str) -> JsonObject:
    """Of a revision that stands, or of the history. Raises ``ValueError``."""
    for one in editions:
        if one.revision == revision:
            return dict(sight.deployments[one.deployment]["spec"]["template"])
    own = sight.deployment
    return past.template_of(sight.entry, revision, own["spec"]["template"] if own is not None else None)


# --- editions ---


def is_ours(obj: JsonObject) -> bool:
    """Whether a release made it."""
    return (obj["metadata"].get("labels") or {}).get(MANAGED_BY) == TIDEGATE


def deployments_of(sight: Sight) -> dict[str, JsonObject]:
    """Revision -> Deployment, the user's own first, then by number."""
    workload = sight.entry.spec.workload
    found = {}
    for name, obj in sight.deployments.items():
        labels = obj["metadata"].get("labels") or {}
        if name == workload:
            found[FIRST] = obj
        elif labels.get(WORKLOAD_LABEL) == workload and labels.get(REVISION_LABEL):
            found[labels[REVISION_LABEL]] = obj
    return dict(sorted(found.items(), key=lambda pair: _number(pair[0])))


def _number(revision: str) -> tuple[int, str]:
    return (int(revision[1:]) if revision[1:].isdigit() else 0), revision


def _editions(sight: Sight, base: JsonObject) -> Iterator[Edition]:
    for revision, obj in deployments_of(sight).items():
        yield edition_of(sight, revision, obj)


def _adopted(sight: Sight, editions: tuple[Edition, ...], target: str) -> tuple[Edition, ...]:
    """With the user's own second Deployment, where the spec names one that is no member of the family yet."""
    name = sight.entry.spec.bluegreen.name if sight.entry.spec.strategy == "bluegreen" else ""
    obj = sight.deployments.get(name)
    if obj is None or any(one.deployment == name for one in editions):
        return editions
    if templates.fingerprint(obj["spec"]["template"]) != target:
        sight.problems.append(
            f"$.spec.bluegreen.name: deployment/{name} is there, with another template than asked for"
        )
        return editions
    numbers = [
        _number(one)[0] for one in (*(e.revision for e in editions), *(p.revision for p in sight.entry.status.history))
    ]
    revision = sight.entry.status.revision
    if not revision or any(one.revision == revision for one in editions):
        revision = f"r{max(numbers, default=0) + 1}"
    return (*editions, edition_of(sight, revision, obj))


def _unmarked(sight: Sight, editions: tuple[Edition, ...], target: str) -> Iterator[str]:
    """Why the label of the user's own does not tell the revisions apart."""
    key = key_of(sight.entry.spec)
    if key == REVISION_LABEL or not sight.template:
        return
    for one in editions:
        if not one.value:
            yield f"$.spec.bluegreen.by: deployment/{one.deployment} gives its pods no label {key}"
    value = _labels(sight.template).get(key, "")
    if not value:
        yield f"$.spec.bluegreen.by: the new template gives its pods no label {key}"
    for one in editions:
        if value and one.value == value and one.fingerprint != target:
            yield f"$.spec.bluegreen.by: the new template has {key}={value}, as deployment/{one.deployment} has"


def _strangers(sight: Sight) -> Iterator[str]:
    """Pods of nobody's revision behind the Service: narrowed to one revision it would drop them, and say nothing."""
    spec = sight.entry.spec
    obj = sight.services.get(spec.service)
    selector = ((obj or {}).get("spec") or {}).get("selector") or {}
    if not selector or REVISION_LABEL in selector or spec.wish == "abort":
        return
    known = {one.uid for pods in sight.pods_of.values() for one in pods}
    known |= {ip for pods in sight.pods_of.values() for one in pods for ip in one.ips}
    own = [entry for one in sight.slices if one.service == spec.service for entry in one.endpoints if entry.is_ready]
    names = [one.pod or one.addresses[0] for one in own if not {one.uid, *one.addresses} & known]
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield (
            f"svc/{spec.service} has pod/{min(names)}{more}, not of deployment/{spec.workload}: as soon as it selects "
            "one revision, they would be out of it; give them a Service of their own"
        )


def _taken(sight: Sight, editions: tuple[Edition, ...], target: str) -> Iterator[str]:
    """Why the new revision's Deployment cannot be made."""
    spec, revision = sight.entry.spec, sight.entry.status.revision
    name = f"{spec.workload}-{revision}"
    is_named = spec.strategy == "bluegreen" and bool(spec.bluegreen.name)
    is_made = any(one.fingerprint == target or one.deployment == name for one in editions)
    if revision and name in sight.deployments and not is_made and not is_named:
        yield f"deployment/{name} is there already, and is not of this release: rename or delete it"


def edition_of(sight: Sight, revision: str, obj: JsonObject) -> Edition:
    """One Deployment of the family as it stands."""
    spec, key = sight.entry.spec, key_of(sight.entry.spec)
    metadata, status, template = obj["metadata"], obj.get("status") or {}, obj["spec"]["template"]
    own = replicasets_of(sight, obj)
    members = [one for made in own for one in of_replicaset(sight, made)]
    pods = [pod.decode(sight.pods[one.name]) for one in members]
    sight.pods_of[revision] = pods
    if spec.service:
        listed = {one.name: sight.is_listed(one, spec.service) for one in pods}
        members = [replace(one, is_listed=one.is_listed and listed[one.name] and not one.is_leaving) for one in members]
    live = [one["spec"]["template"] for one in own if one["spec"].get("replicas")]
    value = _labels(template).get(key, "") if key != REVISION_LABEL else revision
    is_stalled = any(
        one.get("type") == "Progressing" and one.get("reason") == "ProgressDeadlineExceeded"
        for one in status.get("conditions") or ()
    )
    return Edition(
        revision=revision,
        deployment=metadata["name"],
        fingerprint=templates.fingerprint(template),
        desired=int(obj["spec"].get("replicas", 1)),
        members=tuple(members),
        is_base=not is_ours(obj),
        is_observed=(status.get("observedGeneration") or 0) >= metadata.get("generation", 0),
        is_paused=bool(obj["spec"].get("paused")) and PREPARED not in (metadata.get("annotations") or {}),
        is_stalled=is_stalled,
        is_labelled=bool(value) and _is_member(sight, obj) and is_labelled(sight, obj, key, value),
        is_gated=all(templates.is_gated(one) for one in (template, *live)),
        ungatable=why_ungatable(obj),
        is_half_gated=is_half_gated(obj),
        is_half_labelled=half_labelled(obj, own, sight.services.values()) is not None,
        failure=failure_of(own),
        value=value if key != REVISION_LABEL else "",
        autoscaler=_autoscaler(sight, metadata["name"]),
        images=templates.images_of(template),
    )


def _is_member(sight: Sight, obj: JsonObject) -> bool:
    """Whether it bears what a family is known by; the user's own is known by its name."""
    return obj["metadata"]["name"] == sight.entry.spec.workload or REVISION_LABEL in (
        obj["metadata"].get("labels") or {}
    )


def replicasets_of(sight: Sight, deployment: JsonObject) -> list[JsonObject]:
    """All of a Deployment's."""
    uid = deployment["metadata"]["uid"]
    return [one for one in sight.replicasets.values() if controller_uid(one) == uid]


def makers_of(sight: Sight) -> set[str]:
    """uids of all ReplicaSets of the workload's Deployments."""
    made = {one["metadata"]["uid"]: one for one in deployments_of(sight).values()}
    named = sight.deployments.get(sight.entry.spec.bluegreen.name)  # the user's own second one
    made |= {named["metadata"]["uid"]: named} if named is not None else {}
    return {one["metadata"]["uid"] for one in sight.replicasets.values() if controller_uid(one) in made}


def is_labelled(sight: Sight, deployment: JsonObject, key: str, value: str) -> bool:
    """Whether every pod has the label, and whatever makes pods gives it; and nothing of the labelling is left over."""
    own = replicasets_of(sight, deployment)
    makers = [deployment, *(one for one in own if one["spec"].get("replicas"))]
    if any(_labels(one["spec"]["template"]).get(key) != value for one in makers):
        return False
    if any(PREPARED in (one["metadata"].get("annotations") or {}) for one in (deployment, *own)):
        return False
    uids = {one["metadata"]["uid"] for one in own}
    pods = (obj["metadata"] for obj in sight.pods.values() if controller_uid(obj) in uids)
    return all("deletionTimestamp" in one or key in (one.get("labels") or {}) for one in pods)


def _labels(template: JsonObject) -> dict[str, str]:
    return dict((template.get("metadata") or {}).get("labels") or {})


def _autoscaler(sight: Sight, name: str) -> str:
    for found, obj in sorted(sight.autoscalers.items()):
        target = obj["spec"].get("scaleTargetRef") or {}
        if target.get("kind") == "Deployment" and target.get("name") == name:
            return found
    return ""


# --- ways ---


def _ways(sight: Sight) -> Iterator[Way]:
    """The Service of the release, its preview, and whatever a release made for this workload."""
    spec = sight.entry.spec
    pods = [one for one in map(pod.decode, sight.pods.values()) if not one.is_finished]
    for name, obj in sorted(sight.services.items()):
        labels = obj["metadata"].get("labels") or {}
        is_made = labels.get(MANAGED_BY) == TIDEGATE and labels.get(WORKLOAD_LABEL) == spec.workload
        if name in (spec.service, spec.bluegreen.preview) or is_made:
            selector = dict((obj.get("spec") or {}).get("selector") or {})
            selected = [one for one in pods if selector and selector.items() <= one.labels.items()]
            ready = {one.uid for one in selected if one.is_ready and not one.is_terminating}
            mark, listed = labels.get(ROUND_LABEL, ""), sight.listed.get(name, set())
            is_shown = ready <= listed <= {one.uid for one in selected} and _is_known(sight, name, mark)
            yield Way(name, selector, is_shown, is_made, int(mark) if mark.isdigit() else 0)


def _is_known(sight: Sight, service: str, mark: str) -> bool:
    """Whether its slices bear the label that came with its selector of now. One without the label is nobody's yet."""
    labels = [one["metadata"].get("labels") or {} for one in sight.slice_objects]
    own = [one for one in labels if one.get(SERVICE_LABEL) == service and one.get(_SLICES_BY) == _CONTROLLER]
    return not mark or (bool(own) and all(one.get(ROUND_LABEL) == mark for one in own))
