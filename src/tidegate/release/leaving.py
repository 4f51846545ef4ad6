"""Which pods a release is about to end: written down before it does, so that whoever comes next can ask how they did.

Killed between the write that ends pods and their end, an engine has seen none of it. What stands in the status is
looked up by the next one in the ledgers (``client/release/unseen.py``). Pods of which nobody can have lost a request
(they never were ready) are left out, and so are those that the release leaves alone: what an eviction ends is not its.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from tidegate.release.plan import Act, Decision, Step
from tidegate.release.record import Leaver, Phase, noted
from tidegate.release.scene import Edition, Member, Scene

KEPT = 250
"""Names at most: a status is written as a whole, and this many are 25 KiB of it. Those on their way out come first."""


def listed(scene: Scene, decision: Decision, was_ready: Callable[[str], bool]) -> Decision:
    """``decision`` with the pods that it will end, or that are ending, in its status."""
    found, more = leaving(scene, decision, was_ready)
    status = msgspec.structs.replace(decision.status, leaving=found)
    if more and len(scene.status.leaving) < KEPT:
        text = f"{more} more pods are to end than the {KEPT} written down: if no engine looks on, how is not told"
        status = noted(status, scene.now, text)
    return Decision(decision.steps, status)


def leaving(scene: Scene, decision: Decision, was_ready: Callable[[str], bool]) -> tuple[dict[str, Leaver], int]:
    """By name, and how many more there are than are kept. ``was_ready``: whether a pod of that uid ever was seen so."""
    known = {one.uid for one in scene.status.leaving.values()}
    going, staying = [], []
    for edition in scene.editions:
        is_ended = {one.name for one in _ending(scene, decision, edition)}
        for one in edition.members:
            if not one.uid or not (one.is_ready or one.uid in known or was_ready(one.uid)):
                continue
            if one.is_leaving:
                going.append(one)
            elif one.name in is_ended or (one.uid in known and not one.is_ready):  # held by its labels: half drained
                staying.append(one)
    kept = [*going, *staying][:KEPT]
    return {one.name: Leaver(one.uid, one.node, not one.is_gated) for one in kept}, len(going) + len(staying) - len(
        kept
    )


def _ending(scene: Scene, decision: Decision, edition: Edition) -> Iterator[Member]:
    """Of which some will end. Which of a shrinking edition is its controller's choice: any of them."""
    if decision.status.phase == Phase.PENDING.value and not decision.steps:
        return
    is_replaced = scene.spec.strategy == "rolling" and _is_replaced(scene, decision, edition)
    if is_replaced or edition.desired < len(edition.staying):
        yield from edition.members
        return
    for step in decision.steps:
        yield from _ended_by(step, edition)


def _ended_by(step: Step, edition: Edition) -> Iterator[Member]:
    is_fewer = step.act is Act.SCALE or (step.act is Act.DRAIN and step.count == 0)
    if is_fewer and step.subject == edition.revision and (step.count or 0) < len(edition.staying):
        yield from edition.members
    elif step.act in (Act.DRAIN, Act.LET_GO):
        yield from (one for one in edition.members if one.name in step.pods)


def _is_replaced(scene: Scene, decision: Decision, edition: Edition) -> bool:
    """Whether the Deployment's own controller ends its pods: another template is, or will be in a moment, its."""
    back = scene.stable if scene.goes_back else None
    goal = back.fingerprint if back is not None else scene.target
    is_set = scene.template == goal or any(step.act is Act.SET_TEMPLATE for step in decision.steps)
    newest = next((one for one in reversed(scene.editions) if one.fingerprint == goal), None)
    return is_set and edition is not newest
