"""Act: one performer for each kind of step. Every write tests what it was decided on, and is safe to repeat.

A strategy's own performers stand in files of their own and are named in ``PERFORMERS``; what few releases need is
imported when it is first performed. The engine goes on looking while a step of ``BACKGROUND`` is performed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from copy import deepcopy

from tidegate.client.release import family_acts
from tidegate.client.release.family import deployments_of, replicasets_of
from tidegate.client.release.gate import gate_in_place, gating_of, revision_of
from tidegate.client.release.ground import Failed, Ground, check_kept
from tidegate.client.release.let_go import let_go
from tidegate.client.release.look import Sight
from tidegate.drain.gating import CannotBeGated
from tidegate.engine.act import Step as Change
from tidegate.engine.act import write
from tidegate.kube.api import DEPLOYMENTS, JsonObject
from tidegate.model.workload import HASH_LABEL
from tidegate.release import template as templates
from tidegate.release.plan import Act, Step

Performer = Callable[[Ground, Sight, Step], Awaitable[None]]


async def perform(ground: Ground, sight: Sight, step: Step) -> None:
    """Make one step. Raises ``KubeError`` (a conflict where something changed since it was decided: look again)."""
    await PERFORMERS[step.act](ground, sight, step)


async def _set_template(ground: Ground, sight: Sight, step: Step) -> None:
    """The new template, gated; or that of a revision to go back to, as its ReplicaSet has it."""
    deployment = _deployment(sight)
    revision = step.detail.get("revision")
    template = sight.template
    if revision:
        found = _present(_of_revision(sight, deployment, str(revision)), str(revision))
        # One that still has pods is gone back to as it is: what differs, be it the gate, would replace them all.
        template = deepcopy(found["spec"]["template"])
        if not found["spec"].get("replicas"):
            template = _gated(template)
        labels = template["metadata"].get("labels") or {}
        template["metadata"]["labels"] = {key: value for key, value in labels.items() if key != HASH_LABEL}
    changes: list[Change] = [{"op": "replace", "path": "/spec/template", "value": template}]
    if deployment["spec"].get("paused"):
        changes.append({"op": "remove", "path": "/spec/paused"})
    check_kept(template, await write(ground.client, DEPLOYMENTS, deployment, changes))


def _gated(template: JsonObject) -> JsonObject:
    """With a gate where it can have one: a revision from before Tidegate has none."""
    try:
        return templates.gated(template)
    except CannotBeGated:
        return deepcopy(template)


async def _hold(ground: Ground, sight: Sight, step: Step) -> None:
    await write(ground.client, DEPLOYMENTS, _deployment(sight), [{"op": "add", "path": "/spec/paused", "value": True}])


async def _continue(ground: Ground, sight: Sight, step: Step) -> None:
    deployment = _deployment(sight)
    if deployment["spec"].get("paused"):
        await write(ground.client, DEPLOYMENTS, deployment, [{"op": "remove", "path": "/spec/paused"}])


async def _gate(ground: Ground, sight: Sight, step: Step) -> None:
    deployment = _deployment(sight)
    if sight.entry.spec.strategy != "rolling":
        deployment = deployments_of(sight)[step.subject]
    begun = gating_of(deployment)
    # Where it was begun another engine chose, and may have ended in between.
    found = _of_revision(sight, deployment, begun) if begun else _replicaset(sight, deployment, step.subject)
    await gate_in_place(ground.client, deployment, found)


def _replicaset(sight: Sight, deployment: JsonObject, revision: str) -> JsonObject:
    """By its hash; of a family's Deployment, the one that is as the Deployment's template says."""
    if sight.entry.spec.strategy == "rolling":
        found = _of_revision(sight, deployment, revision)
    else:
        mark = templates.fingerprint(deployment["spec"]["template"])
        own = [one for one in replicasets_of(sight, deployment) if one["spec"].get("replicas")]
        found = next((one for one in own if templates.fingerprint(one["spec"]["template"]) == mark), None)
    return _present(found, revision)


def _of_revision(sight: Sight, deployment: JsonObject, revision: str) -> JsonObject | None:
    return next((one for one in replicasets_of(sight, deployment) if revision_of(one) == revision), None)


def _present(found: JsonObject | None, revision: str) -> JsonObject:
    if found is None:
        raise Failed(f"there is no ReplicaSet of revision {revision} any more")
    return found


async def _drain(ground: Ground, sight: Sight, step: Step) -> None:
    """One pod after the other, each replaced first; with ``count``, the Deployment is to have as many fewer, and they
    are out of traffic. Raises ``Failed`` at the first that is not verified."""
    from tidegate.client.release import end_unrouted, rainbow_acts

    if step.count is None:
        await end_unrouted.by_label(ground, sight, step.pods, step.reason)
    elif sight.entry.spec.strategy == "rainbow":
        await rainbow_acts.end_idle(ground, sight, step)
    else:
        await end_unrouted.end_unrouted(ground, sight, step)


async def _mark(ground: Ground, sight: Sight, step: Step) -> None:
    from tidegate.client.release import rainbow_acts

    await rainbow_acts.mark(ground, sight, step)


async def _weigh(ground: Ground, sight: Sight, step: Step) -> None:
    from tidegate.client.release import routers

    await routers.weigh(ground, sight, step)


def _deployment(sight: Sight) -> JsonObject:
    if sight.deployment is None:
        raise Failed(f"there is no deployment/{sight.entry.spec.workload}")
    return sight.deployment


PERFORMERS: Mapping[Act, Performer] = {
    Act.SET_TEMPLATE: _set_template,
    Act.HOLD: _hold,
    Act.CONTINUE: _continue,
    Act.GATE: _gate,
    Act.DRAIN: _drain,
    Act.LET_GO: let_go,
    Act.CREATE: family_acts.create,
    Act.SCALE: family_acts.scale,
    Act.LABEL: family_acts.label,
    Act.EXPOSE: family_acts.expose,
    Act.RETARGET: family_acts.retarget,
    Act.RETIRE: family_acts.retire,
    Act.AUTOSCALE: family_acts.autoscale,
    Act.MARK: _mark,
    Act.WEIGH: _weigh,
}
BACKGROUND = frozenset({Act.DRAIN, Act.LET_GO, Act.ASK, Act.MEASURE})
"""Steps that take long: they run beside the engine, one of each kind and subject at a time."""
