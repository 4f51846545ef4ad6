"""What rainbow does to pods: says which go first, and ends those that have no gate to end by."""

from __future__ import annotations

from collections.abc import Iterable

from tidegate.client.release.activity import Work
from tidegate.client.release.family_acts import scale
from tidegate.client.release.ground import Failed, Ground
from tidegate.client.release.look import Sight
from tidegate.drain.ledger import Subject
from tidegate.engine import act
from tidegate.engine.act import Step as Change
from tidegate.engine.act import pointer, write
from tidegate.engine.chronicle import Chronicle
from tidegate.kube.api import PODS
from tidegate.kube.errors import ApiError
from tidegate.model.names import ACTIVITY, WORK, DrainResult, Ending
from tidegate.model.pod import Pod
from tidegate.release.plan import Step
from tidegate.release.scene import DELETION_COST, REVISION_LABEL


async def mark(ground: Ground, sight: Sight, step: Step) -> None:
    """Annotations of pods. ``detail``: ``costs`` (pod -> deletion cost), ``activity`` (the probe that they are asked
    by), ``work`` (the one by which they tell of a whole revision)."""
    costs = step.detail.get("costs") or {}
    probes = {ACTIVITY: step.detail.get("activity"), WORK: step.detail.get("work")}
    for name in step.pods:
        obj = sight.pods.get(name)
        if obj is None:
            continue
        wanted = {DELETION_COST: str(costs[name])} if name in costs else {}
        wanted |= {key: str(text) for key, text in probes.items() if text}
        changes: list[Change] = []
        if not obj["metadata"].get("annotations"):
            changes.append({"op": "add", "path": "/metadata/annotations", "value": {}})
        for key, value in wanted.items():
            changes.append({"op": "add", "path": f"/metadata/annotations/{pointer(key)}", "value": value})
        try:
            await write(ground.client, PODS, obj, changes)
        except ApiError as error:
            if not error.is_not_found:
                raise


async def end_idle(ground: Ground, sight: Sight, step: Step) -> None:
    """Fewer pods (``count``), where those that go (``pods``) have no gate: nobody would look when they are told to.

    So it is looked at here, once more. Every observer has let go of them and nothing is in flight: that is what a gate
    waits for, and it is written on them as a gate would. Raises ``Failed`` where it is not so any more.
    """
    names = set(step.pods)
    pods = [one for one in sight.pods_of.get(step.subject, []) if one.name in names]
    counts = await Work(ground.client).connections(sight, pods)
    unknown = [one.uid for one in pods if counts[one.uid] is None]
    is_retired = step.subject in sight.scene.spec.retire  # somebody answers for what is not known, nobody for what is
    busy = [one.name for one in pods if counts[one.uid] or (one.uid in unknown and not is_retired)]
    if busy:
        raise Failed(f"{', '.join(busy)} would have gone idle, and have work again, or it is not known")
    for one in pods:
        others = [name for name, seen in sorted(sight.listed.items()) if seen & {one.uid, *one.ips}]
        others = [name for name in others if name != sight.entry.spec.service]
        if others:
            raise Failed(
                f"svc/{others[0]} has pod/{one.name} too, nobody was asked about that, and the pod has no gate: let it "
                f"select by {REVISION_LABEL}, or drain the pod (`tidegate drain pod/{one.name}`)"
            )
    as_what = f"as revision {step.subject} of {sight.entry.spec.workload} drains"
    idle = DrainResult(Ending.VERIFIED, f"routed nowhere and idle, {as_what}")
    let_go = DrainResult(Ending.ASSUMED, f"routed nowhere, {as_what}: whether it had work was not known")
    await end(ground, sight, step, [(one, let_go if one.uid in unknown else idle) for one in pods])


async def end(ground: Ground, sight: Sight, step: Step, ended: Iterable[tuple[Pod, DrainResult]]) -> None:
    """What is known of each pod, on it and in the ledger; then its Deployment is scaled."""
    for one, result in ended:
        await act.record_result(ground.client, one, result)
        _written_down(ground, one, result)
    if ground.ledger is not None:
        await ground.ledger.settled()
    await scale(ground, sight, step)


def _written_down(ground: Ground, one: Pod, result: DrainResult) -> None:
    """What stands on the pod goes with it; whoever comes after us asks the ledger."""
    if ground.ledger is None:
        return
    subject = Subject(
        verb="drain",
        mode="label",
        by=ground.identity.by,
        cluster=ground.client.server,
        uid=one.uid,
        namespace=one.namespace,
        pod=one.name,
        node=one.node,
    )
    Chronicle(subject, ground.ledger).conclude(result)
