"""The invariants that every plan keeps, whichever strategy made it: checked on each step before it is made.

A breach is a mistake of a strategy, not of its user: the engine stops there and says so. The property tests play every
strategy against them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tidegate.release.plan import Act, Decision, Step
from tidegate.release.proving import is_kept_by_analysis
from tidegate.release.scene import Edition, Question, Scene


def breaches(scene: Scene, decision: Decision) -> tuple[str, ...]:
    """What is wrong with the steps of ``decision``; empty when they may be made."""
    return tuple(text for step in decision.steps for text in _of(scene, step))


def _of(scene: Scene, step: Step) -> Iterator[str]:
    match step.act:
        case Act.SCALE:
            yield from _scale(scene, step)
        case Act.SET_TEMPLATE:
            yield from _ungated(scene, step, _replaced(scene, step))
        case Act.DRAIN if step.count is not None:
            yield from _as_they_are(scene, step)
        case Act.LET_GO if scene.spec.ungated != "proceed":
            yield f"{step}: they would end unverified, and nobody has agreed to that"
        case Act.RETARGET:
            yield from _retarget(scene, step)
        case Act.WEIGH:
            yield from _weigh(scene, step)
        case Act.RETIRE:
            yield from _retire(scene, step)
        case _:
            pass


def _scale(scene: Scene, step: Step) -> Iterator[str]:
    edition = scene.edition(step.subject)
    if edition is None or step.count is None or step.count < 0:
        yield f"{step}: there is no such revision, or no such number"
        return
    fewer = len(edition.staying) - step.count
    if fewer < 0 and not edition.is_gated:
        yield from _unfit(scene, step, edition)
    if fewer <= 0:
        return
    yield from _ungated(scene, step, [edition])
    if edition.revision == scene.status.stable and is_kept_by_analysis(scene):
        yield f"{step}: what is asked after the flip has not passed, and it is the way back"
    if not edition.listed:
        return
    left = left_after(scene, edition, step.count)
    if left < scene.floor:
        yield f"{step}: {left} of its pods would be available, {scene.floor} have to be"
    heir = scene.stable if scene.goes_back else scene.incoming
    if heir is None or heir is edition or _is_routed(scene, heir):
        return
    stable = scene.stable  # it takes back what a revision had that is neither: given up, or superseded
    if stable is None or stable is edition or not _is_routed(scene, stable):
        yield f"{step}: {heir.revision} is not known to be routed everywhere"


def left_after(scene: Scene, edition: Edition, count: int) -> int:
    """How many pods of all revisions are listed once ``edition`` has ``count``. Whom the ReplicaSet picks is its own
    choice: the worst is counted."""
    fewer = max(len(edition.staying) - count, 0)
    others = sum(one.listed for one in scene.editions if one is not edition)
    return others + max(edition.listed - fewer, 0)


def _is_routed(scene: Scene, edition: Edition) -> bool:
    services = [scene.spec.service] if scene.spec.service else [one.name for one in scene.ways]
    answers = [scene.asked(Question("routed", edition.revision, name, scene.status.round)) for name in services]
    return all(one is not None and one.is_settled for one in answers)


def _ungated(scene: Scene, step: Step, shrinking: list[Edition]) -> Iterator[str]:
    if scene.spec.ungated == "proceed":
        return
    bare = [one.name for edition in shrinking for one in edition.ungated]
    if bare:
        yield f"{step}: {', '.join(bare)} have no gate and would end unverified"


def _replaced(scene: Scene, step: Step) -> list[Edition]:
    """Whom the Deployment controller ends once the template is another: all but the newest that has it."""
    wanted = step.detail.get("revision")
    named = scene.edition(str(wanted)) if wanted else None
    goal = named.fingerprint if named is not None else scene.target
    kept = next((one for one in reversed(scene.editions) if one.fingerprint == goal), None)
    return [one for one in scene.editions if one is not kept]


def _as_they_are(scene: Scene, step: Step) -> Iterator[str]:
    """Pods without a gate that are ended without a twin: nobody may send to them, and none may go with them unseen."""
    edition = scene.edition(step.subject)
    if edition is None or step.count is None:
        yield f"{step}: there is no such revision, or no such number"
        return
    listed = [one.name for one in edition.staying if one.name in step.pods and one.is_listed]
    if listed:
        yield f"{step}: {', '.join(listed)} are listed still"
    service = scene.spec.service
    said = scene.asked(Question("unrouted", edition.revision, service, scene.status.round))
    if service and (said is None or not said.is_settled):
        yield f"{step}: {edition.revision} is not known to be unrouted"
    others = [one.name for one in edition.ungated if one.name not in step.pods]
    if len(others) > step.count and scene.spec.ungated != "proceed":
        yield f"{step}: {', '.join(others)} have no gate, and would go unseen with the others"


def _unfit(scene: Scene, step: Step, edition: Edition) -> Iterator[str]:
    """More traffic for pods that have no gate. Who had it before may have it again: the way back is not barred."""
    if scene.spec.ungated == "proceed" or has_served(scene, edition) or (edition.is_gated and not edition.ungated):
        return
    names = ", ".join(one.name for one in edition.ungated) or edition.revision
    yield f"{step}: {names} have no gate, and no traffic is sent to pods that nobody could drain"


def has_served(scene: Scene, edition: Edition) -> bool:
    """Whether it is the user's own, or had the traffic before."""
    past = {one.revision for one in scene.status.history if one.outcome in ("before", "done")}
    return edition.is_base or edition.revision == scene.status.stable or edition.revision in past


def selected(scene: Scene, selector: Mapping[str, str | None], revision_label: str) -> list[Edition]:
    """The editions that a selector with a revision's label selects; all of them where it has none."""
    wanted = selector.get(revision_label)
    return [one for one in scene.editions if wanted is None or one.revision == wanted]


def _retarget(scene: Scene, step: Step) -> Iterator[str]:
    revision = step.detail.get("revision")
    edition = scene.edition(str(revision)) if revision else None
    for one in scene.editions if revision is None else [edition]:
        if one is not None and one.ungated:
            yield from _unfit(scene, step, one)
    if revision is None:
        return
    if edition is None:
        yield f"{step}: there is no revision {revision}"
    elif edition.ready < max(scene.floor, 1) and any(one.listed for one in scene.editions if one is not edition):
        yield f"{step}: only {edition.ready} of its pods are ready, {max(scene.floor, 1)} have to be"
    elif not edition.is_labelled:
        yield f"{step}: not every pod of {revision} bears its label"


def _weigh(scene: Scene, step: Step) -> Iterator[str]:
    weights = step.weights or {}
    if sum(weights.values()) != 100:
        yield f"{step}: weights have to add up to 100"
    for revision, weight in weights.items():
        edition = scene.edition(revision)
        if weight <= scene.weights.get(revision, 0):
            continue
        if edition is None or not edition.ready:
            yield f"{step}: {revision} has no ready pod"
        elif edition.ungated:
            yield from _unfit(scene, step, edition)


def _retire(scene: Scene, step: Step) -> Iterator[str]:
    edition = scene.edition(step.subject)
    if edition is None:
        return
    if edition.is_base:
        yield f"{step}: it is the user's own Deployment"
    if edition.members or edition.desired:
        yield f"{step}: it still has pods"
    if edition is scene.incoming and not scene.goes_back:
        yield f"{step}: it is the one that is asked for"
