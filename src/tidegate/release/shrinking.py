"""rainbow's old revisions: pod by pod to zero as their work ends, idle ones first; then retired, or revived.

Which pod a shrinking ReplicaSet deletes: those that are not ready first, whatever they cost, then the cheapest
(pkg/controller ActivePodsWithRanks; pod-deletion-cost, KEP-2255). So idle pods are marked the cheapest and all others
the dearest, the number that goes is never more than are idle, and a pod that is busy but not ready stops it: it would
be the first. What is not known to be idle is kept (temporal-worker-controller #573: unknown taken for idle).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import msgspec

from tidegate.model.activity import PLACE
from tidegate.release.plan import Act, Step
from tidegate.release.scene import Edition, Member, Question, Scene

IDLE_COST, BUSY_COST = -(2**31), 2**31 - 1
"""int32: the annotation's bounds."""
MARK_SECONDS = 2.0
"""From a pod's mark to the number of pods: the ReplicaSet controller hears of them by two watches, in any order."""


@dataclass(slots=True)
class Shrinking:
    """What to do with the old ones, a sentence for each that waits, and whether none is left to wait for."""

    steps: list[Step] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    is_over: bool = True


def remembered(scene: Scene, old: Sequence[Edition]) -> Scene:
    """With ``idle_since`` as it is now: by pod, by ``marked/`` and the pod (since when its mark is the right one) and,
    for revisions that stand at zero, by name."""
    before, now = scene.status.idle_since, scene.now
    idle: dict[str, float] = {}
    for edition in old:
        if is_at_zero(edition):
            if not _asks(scene, edition):
                idle[edition.revision] = before.get(edition.revision, now)
            continue
        if not is_unrouted(scene, edition):
            continue
        idle |= {_key(one): before.get(_key(one), now) for one in edition.staying if _is_idle(scene, edition, one)}
    found = replace(scene, status=msgspec.structs.replace(scene.status, idle_since=idle))
    for edition in old:
        for one in edition.staying:
            wanted = IDLE_COST if _is_due(found, one) else BUSY_COST
            # The mark of before says which way it was: one that has changed sides counts from now.
            if one.cost == wanted and is_unrouted(scene, edition):
                idle[_marked(one)] = before.get(_marked(one), now)
    return found


def shrink(scene: Scene, old: Sequence[Edition]) -> Shrinking:
    """The oldest first. ``scene`` is ``remembered``."""
    found = Shrinking()
    for edition in old:
        for one in _of(scene, edition):
            found.is_over = False
            if isinstance(one, Step):
                found.steps.append(one)
            else:
                found.texts.append(one)
    return found


def heralds(scene: Scene, edition: Edition) -> Iterator[Step]:
    """Pods that serve tell of every revision's work, once they bear the question."""
    bare = tuple(one.name for one in edition.staying if not one.is_probed)
    if is_shared(scene) and bare:
        probe = {"work": scene.spec.rainbow.activity}
        yield Step(Act.MARK, edition.revision, "any of them can tell of each revision's work", pods=bare, detail=probe)


def work_of(scene: Scene, edition: Edition, serving: str = "") -> str:
    """What a revision does, for people: "2 connections", "not known at web-r2-x"."""
    if edition.revision == serving:
        return "serves"
    if is_shared(scene) and edition.work != 0:
        return "its work is not known" if edition.work is None else f"{edition.work} to do"
    unknown = [one.name for one in edition.staying if one.connections is None]
    busy = sum(one.connections or 0 for one in edition.members)
    known = f"{busy} connection{'s' * (busy != 1)}"
    return f"{known}, not known at {', '.join(unknown)}" if unknown else known


def is_shared(scene: Scene) -> bool:
    """Whether the revision's work is one number, not one for each pod."""
    return PLACE in scene.spec.rainbow.activity


def is_at_zero(edition: Edition) -> bool:
    return not edition.members and edition.desired == 0


def is_unrouted(scene: Scene, edition: Edition) -> bool:
    """Whether every observer has let go of it, in this round; without a Service nobody routes to it."""
    if not scene.spec.service:
        return True
    said = scene.asked(Question("unrouted", edition.revision, scene.spec.service, scene.status.round))
    return said is not None and said.is_settled


def _key(pod: Member) -> str:
    return pod.uid or pod.name


def _marked(pod: Member) -> str:
    return f"marked{pod.cost:+d}/{_key(pod)}"


def _asks(scene: Scene, edition: Edition) -> bool:
    """Whether the workload's own word says that the revision has work, or cannot be had. A person may overrule what is
    not known (``retire``), never what is."""
    if not is_shared(scene):
        return False
    return edition.revision not in scene.spec.retire if edition.work is None else edition.work > 0


def _is_idle(scene: Scene, edition: Edition, pod: Member) -> bool:
    if _asks(scene, edition):
        return False
    if pod.connections is None:
        return edition.revision in scene.spec.retire
    return pod.connections == 0


def _of(scene: Scene, edition: Edition) -> Iterator[Step | str]:
    """What is to be done, or what it waits for; nothing when it has come to its end."""
    if is_at_zero(edition):
        yield from _at_zero(scene, edition)
        return
    if not is_unrouted(scene, edition):
        yield from _asked(scene, edition)
        return
    if not scene.spec.service and edition.listed:
        yield f"{edition.revision}: a Service lists its pods, name it in $.spec.rainbow.service"
        return
    if edition.autoscaler:
        yield f"{edition.revision}: hpa/{edition.autoscaler} has its replicas, and two would fight for them"
        return
    revived = _revived(scene, edition)
    if revived is not None:
        yield revived
        return
    yield from _shrunk(scene, edition)


def _asked(scene: Scene, edition: Edition) -> Iterator[Step | str]:
    asking = Question("unrouted", edition.revision, scene.spec.service, scene.status.round)
    said = scene.asked(asking)
    names = f" ({', '.join(said.stragglers)})" if said is not None and said.stragglers else ""
    why = f"{edition.revision} is drained only once nobody routes to it{names}"
    yield Step(Act.ASK, scene.spec.service, why, question=asking)
    yield f"{edition.revision} waits until nobody routes to it{names}"


def _at_zero(scene: Scene, edition: Edition) -> Iterator[Step | str]:
    revived = _revived(scene, edition)
    if revived is not None:
        yield revived
        return
    if edition.is_base and not is_shared(scene):
        return
    since = scene.status.idle_since.get(edition.revision)
    if edition.revision not in scene.spec.retire:
        if _asks(scene, edition):
            yield f"{edition.revision} stands at zero and is kept: whether work waits for it is not known"
            return
        if since is None or scene.now - since < scene.spec.rainbow.retire_seconds:
            kept = f"{scene.spec.rainbow.retire_seconds:g} s"
            yield f"{edition.revision} stands at zero, for {kept} in case work comes"
            return
    if not edition.is_base:
        yield Step(
            Act.RETIRE, edition.revision, f"at zero for {scene.spec.rainbow.retire_seconds:g} s, and no work came"
        )


def _revived(scene: Scene, edition: Edition) -> Step | None:
    """Work that waits for it brings pods back: as many as there is work, at most as many as it had."""
    work = edition.work if is_shared(scene) else None
    if not work:
        return None
    wanted = min(work, max(scene.replicas, 1))
    if edition.desired >= wanted:
        return None
    why = f"{work} to do that only {edition.revision} can: it has pods for it again"
    return Step(Act.SCALE, edition.revision, why, count=wanted)


def _shrunk(scene: Scene, edition: Edition) -> Iterator[Step | str]:
    staying = edition.staying
    bare = tuple(one.name for one in staying if not one.is_probed)
    if bare:
        why = "they are asked by it whether they have work"
        probe = {"activity": scene.spec.rainbow.activity}
        yield Step(Act.MARK, edition.revision, why, pods=bare, detail=probe)
    due = [one for one in staying if _is_due(scene, one)]
    left = len(staying) - len(due)
    text = f"{edition.revision}: {len(staying)} pod{'s' * (len(staying) != 1)}, {work_of(scene, edition)}"
    if left:
        yield from _marks(edition, due)
    blocking = [one for one in staying if not one.is_ready and one not in due]
    is_marked = not left or all(scene.now - _marked_since(scene, one) >= MARK_SECONDS for one in staying)
    if due and left and blocking:
        text += f"; pod/{blocking[0].name} is busy and not ready, it would be the first to go"
    elif due and is_marked and left < edition.desired:
        what = f"{len(due)} of its {len(staying)} pods had nothing to do for {scene.spec.rainbow.idle_seconds:g} s"
        yield _fewer(scene, edition, due, what)
    yield text


def _marked_since(scene: Scene, pod: Member) -> float:
    return scene.status.idle_since.get(_marked(pod), scene.now)


def _fewer(scene: Scene, edition: Edition, due: list[Member], why: str) -> Step:
    left = len(edition.staying) - len(due)
    if edition.ungated and scene.spec.ungated == "drain":
        pods = tuple(one.name for one in due)
        return Step(Act.DRAIN, edition.revision, f"{why}, and have no gate to end by", left, pods=pods)
    return Step(Act.SCALE, edition.revision, why, count=left)


def _is_due(scene: Scene, pod: Member) -> bool:
    since = scene.status.idle_since.get(_key(pod))
    return since is not None and scene.now - since >= scene.spec.rainbow.idle_seconds


def _marks(edition: Edition, due: list[Member]) -> Iterator[Step]:
    first = tuple(one.name for one in due if one.cost != IDLE_COST)
    last = tuple(one.name for one in edition.staying if one not in due and one.cost != BUSY_COST)
    if first:
        costs = {"costs": dict.fromkeys(first, IDLE_COST)}
        yield Step(Act.MARK, edition.revision, "idle: the first to go", pods=first, detail=costs)
    if last:
        why = "busy, or not known to be idle for long: the last to go"
        costs = {"costs": dict.fromkeys(last, BUSY_COST)}
        yield Step(Act.MARK, edition.revision, why, pods=last, detail=costs)
