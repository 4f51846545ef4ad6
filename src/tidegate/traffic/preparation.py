"""``prepare``: what comes next on the way to a Service that selects by a label of its own, or on the way back.

Level-triggered: ``next_move`` looks at everything as it stands (``Scene``) and gives one ``Move`` with its reason, so
a run that was killed anywhere, or undone halfway, goes on from what it finds. The rule behind the order: the Service's
selector asks for the label LAST, when whoever makes pods gives it and every pod has it; and it stops asking FIRST.
No move can then take a ready endpoint from the Service.

Objects are not enough, though: the EndpointSlice controller reads Services and pods from two caches, and nothing orders
these. Told to select by a label that it has not seen on the pods yet, it drops them for a moment (seen once on 1.36.2,
just started on a busy machine). So the selector to come is *rehearsed* first, on a Service that nobody asks: once its
slices list every ready pod, the labels are known. On the way back the labels go once the slices show, by a label copied
from the Service, that its selector of now is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from tidegate.model.names import PrepareRecord

PREPARING, VERIFYING, PREPARED, ABORTING = "preparing", "verifying", "prepared", "aborting"
"""Phases of the record on a Service."""
PAUSED, RESUMING = "paused", "resuming"
"""Phases of the record on a Deployment."""


class Act(Enum):
    """What a move does. Each is one tested write, save LABEL_* (one for each name) and WAIT, STUCK, DONE (none)."""

    CLAIM = "record it on the Service"
    EXTEND = "extend the Service's selector"
    SHRINK = "take the label out of the Service's selector"
    REHEARSE = "make a Service that nobody asks, with the selector to come"
    DISMISS = "delete the Service that nobody asks"
    LABEL_REVISIONS = "label the template of ReplicaSets"
    LABEL_PODS = "label pods"
    LABEL_TEMPLATE = "label the Deployment's template"
    PAUSE = "pause the Deployment"
    ANNOUNCE = "ask the Deployment controller whether it has seen it"
    RESUME = "resume the Deployment"
    CLEAN = "take our annotation off ReplicaSets"
    FINISH = "write the end into the record"
    WAIT = "wait"
    STUCK = "stop"
    DONE = "nothing"


@dataclass(frozen=True, slots=True)
class Move:
    """``subject`` is the Deployment it is about ("" for the Service), ``names`` the objects, ``reason`` a sentence."""

    act: Act
    reason: str
    subject: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wish:
    """The label, the way, and the direction."""

    key: str
    value: str
    in_place: bool
    is_abort: bool = False


@dataclass(frozen=True, slots=True)
class Edition:
    """A ReplicaSet. ``is_current``: its revision is the Deployment's. ``is_observed``: its controller has seen the
    template that stands there now, so the pods it makes from now on follow it. ``mark`` is our annotation on its
    template ("" without). ``is_twin``: but for the label it equals the current one. ``copy`` is the text of our record
    that the Deployment controller copied onto it."""

    name: str
    labels: dict[str, str]
    replicas: int
    is_current: bool
    is_observed: bool = True
    mark: str = ""
    is_twin: bool = False
    copy: str = ""


@dataclass(frozen=True, slots=True)
class Member:
    """A pod that the Service selects, or would without our label. ``workload`` is ``Kind/name`` or ``pod`` for a bare
    one, ``is_kept_out``: a verb or a person took it out by labels. ``is_listed``: the Service's slices list it as ready
    (or it is not ready); ``is_rehearsed``: so do those of the selector to come."""

    name: str
    workload: str
    labels: dict[str, str]
    is_leaving: bool = False
    is_listed: bool = True
    is_rehearsed: bool = False
    is_kept_out: bool = False


@dataclass(frozen=True, slots=True)
class Subject:
    """A Deployment. ``is_single``: its controller has seen it as it is and no rollout goes on; ``is_complete``: all
    its pods are of the newest revision and available. ``record`` is ours, ``text`` as it stands there."""

    name: str
    labels: dict[str, str]
    editions: tuple[Edition, ...]
    is_paused: bool = False
    is_observed: bool = True
    is_single: bool = True
    is_complete: bool = True
    record: PrepareRecord | None = None
    text: str = ""

    @property
    def current(self) -> Edition | None:
        """The ReplicaSet of its revision; None while there is none yet."""
        return next((one for one in self.editions if one.is_current), None)

    @property
    def workload(self) -> str:
        return f"Deployment/{self.name}"


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything as it stands. ``sources`` are workloads that are not to be prepared and whose template the Service
    would select: (name, labels of the template). ``rehearsal`` is the selector of the Service that nobody asks;
    ``is_shown``: the slices show that the Service's selector of now is known."""

    selector: dict[str, str]
    subjects: tuple[Subject, ...]
    members: tuple[Member, ...]
    sources: tuple[tuple[str, dict[str, str]], ...] = ()
    record: PrepareRecord | None = None
    rehearsal: dict[str, str] | None = None
    is_shown: bool = False

    @property
    def phase(self) -> str:
        return self.record.phase if self.record is not None else ""


def next_move(scene: Scene, wish: Wish) -> Move:
    """The one thing to do now. WAIT: look again later; STUCK: it cannot go on by itself; DONE: it is as wished."""
    return next(_backward(scene, wish) if wish.is_abort else _forward(scene, wish))


def _forward(scene: Scene, wish: Wish) -> Iterator[Move]:
    if scene.phase not in (PREPARING, VERIFYING, PREPARED):
        yield Move(Act.CLAIM, "of two who begin at once one wins, and whoever comes later can go on or go back")
    if wish.key in scene.selector:
        yield from _verified(scene, wish)
    strangers = tuple(dict.fromkeys((*_strange_sources(scene, wish), *_strange_members(scene, wish))))
    if strangers:
        yield Move(Act.STUCK, f"the Service would lose {', '.join(strangers)}: without the label", names=strangers)
    for subject in scene.subjects:
        yield from _labelled(scene, subject, wish)
    for subject in scene.subjects:
        yield from _unseen(subject)
    rest = _bare(scene, wish)
    if rest:
        yield Move(Act.LABEL_PODS, "they were made before the template had it, and are served still", names=rest)
    yield from _rehearsed(scene, wish)
    yield Move(Act.EXTEND, "every pod it selects has the label, and all that makes pods gives it")


def label_move(scene: Scene, wish: Wish) -> Move | None:
    """The one thing to do now on the way to a label on everything that Deployments make, no pod restarted; Services
    are left as they are. None once that is so."""
    for subject in scene.subjects:
        for move in _in_place(scene, subject, wish):
            return move
    return None


def _rehearsed(scene: Scene, wish: Wish) -> Iterator[Move]:
    """Does the EndpointSlice controller know the labels?"""
    if scene.rehearsal is not None and scene.rehearsal != {**scene.selector, wish.key: wish.value}:
        yield Move(Act.DISMISS, "the Service's selector has changed since")
    if scene.rehearsal is None:
        yield Move(Act.REHEARSE, "its EndpointSlices tell when the labels are known")
    missing = tuple(one.name for one in scene.members if not one.is_rehearsed)
    if missing:
        yield Move(Act.WAIT, f"until its EndpointSlices list {', '.join(missing)}", names=missing)


def _verified(scene: Scene, wish: Wish) -> Iterator[Move]:
    """The selector asks for the label already: does anything that gives no label make pods, has any been missed?"""
    kept = tuple(f"pod/{one.name}" for one in scene.members if _is_other(one, wish) and not one.is_leaving)
    barren = (*(one.name for one in scene.subjects if _lacks(one, wish)), *_strange_sources(scene, wish))
    if barren and kept:
        reason = f"{', '.join(barren)} makes pods without the label, and only the label keeps {', '.join(kept)} out"
        yield Move(Act.STUCK, reason, names=kept)
    if barren:
        yield Move(Act.SHRINK, f"{', '.join(barren)} makes pods without the label", names=barren)
    if scene.phase == PREPARED:
        yield Move(Act.DONE, "already prepared")
    strangers = _strange_members(scene, wish)
    if strangers and not kept:
        yield Move(Act.SHRINK, f"{', '.join(strangers)} came meanwhile, without the label", names=strangers)
    bare = _bare(scene, wish)
    if bare:
        yield Move(Act.LABEL_PODS, "they came between the last look and the change of the selector", names=bare)
    missing = tuple(one.name for one in scene.members if not one.is_listed and not one.is_kept_out)
    if missing:
        yield Move(Act.WAIT, f"until the EndpointSlices list {', '.join(missing)}", names=missing)
    if scene.rehearsal is not None:
        yield Move(Act.DISMISS, "it has told what it was made for")
    yield Move(Act.FINISH, "the EndpointSlices list every ready pod that they listed before")


def _labelled(scene: Scene, subject: Subject, wish: Wish) -> Iterator[Move]:
    yield from (_in_place if wish.in_place else _by_rollout)(scene, subject, wish)


def _by_rollout(scene: Scene, subject: Subject, wish: Wish) -> Iterator[Move]:
    del scene
    name = subject.name
    if not _gives(subject.labels, wish):
        yield Move(Act.LABEL_TEMPLATE, "a rollout follows, by the Deployment's own strategy", name)
    if not subject.is_complete:
        yield Move(Act.WAIT, f"until the rollout of deploy/{name} is complete", name)
    yield from _unseen(subject)
    older = tuple(one.name for one in subject.editions if not one.is_current and not _gives(one.labels, wish))
    if older:
        yield Move(Act.LABEL_REVISIONS, "a rollback to one would make pods outside the Service", name, older)


def _in_place(scene: Scene, subject: Subject, wish: Wish) -> Iterator[Move]:
    """The ReplicaSet's template first, the pods, then the Deployment's: equal again, it has nothing to roll out."""
    name, current = subject.name, subject.current
    if current is None or (not subject.is_paused and not subject.is_single):
        yield Move(Act.WAIT, f"until the Deployment controller has settled deploy/{name}", name)
        return
    lacking = tuple(one.name for one in subject.editions if not _gives(one.labels, wish) or _is_mistakable(one))
    own = tuple(one.name for one in scene.members if one.workload == subject.workload and _is_bare(one, wish))
    if lacking or not _gives(subject.labels, wish):
        yield from _held_still(subject)
        if lacking:
            reason = "pods made from now on have it, those of a rollback too; the template of a ReplicaSet may change"
            yield Move(Act.LABEL_REVISIONS, reason, name, lacking)
        yield from _unseen(subject)
        if own:
            yield Move(Act.LABEL_PODS, "none is restarted", name, own)
        yield Move(Act.LABEL_TEMPLATE, "equal to its ReplicaSet's again: there is nothing to roll out", name)
    yield from _let_go(subject)


def _held_still(subject: Subject) -> Iterator[Move]:
    """A Deployment that is paused, and known to be: else a changed ReplicaSet is one more reason to roll out."""
    if not subject.is_paused or subject.record is None or subject.record.phase != PAUSED:
        yield Move(Act.PAUSE, "or its controller would roll out what differs from its template", subject.name)
    if not subject.is_observed:
        yield Move(Act.WAIT, f"until the Deployment controller has seen deploy/{subject.name} paused", subject.name)


def _let_go(subject: Subject) -> Iterator[Move]:
    """Resume, once the Deployment controller has found its ReplicaSet again.

    It copies a Deployment's annotations onto the ReplicaSet whose template equals the Deployment's, and onto no other:
    our record there, letter by letter, is its word that what it has cached is equal (sync.go getNewReplicaSet).
    """
    name, current = subject.name, subject.current
    assert current is not None
    if subject.record is not None:
        if subject.record.phase != RESUMING:
            yield Move(Act.ANNOUNCE, "resumed too early, it would roll out", name)
        if current.copy != subject.text:
            yield Move(Act.WAIT, f"until the Deployment controller knows {current.name} for the newest again", name)
        yield Move(Act.RESUME, "it has found its ReplicaSet again", name)
    if not subject.is_single:
        yield Move(Act.WAIT, f"until the Deployment controller has seen deploy/{name} resumed", name)
    copies = tuple(one.name for one in subject.editions if one.copy)
    if copies:
        yield Move(Act.CLEAN, "a rollback would copy it to the Deployment", name, copies)


def _unseen(subject: Subject) -> Iterator[Move]:
    unseen = tuple(one.name for one in subject.editions if one.replicas and not one.is_observed)
    if unseen:
        yield Move(Act.WAIT, f"until the ReplicaSet controller has seen {', '.join(unseen)}", subject.name, unseen)


def _backward(scene: Scene, wish: Wish) -> Iterator[Move]:
    copies = (one.copy for subject in scene.subjects for one in subject.editions)
    if scene.record is None and all(one.record is None for one in scene.subjects) and not any(copies):
        yield Move(Act.DONE, "it is not prepared")
    if wish.key in scene.selector:
        kept = tuple(f"pod/{one.name}" for one in scene.members if one.is_kept_out and not one.is_leaving)
        if kept:
            yield Move(Act.STUCK, f"only the label keeps {', '.join(kept)} out of the Service", names=kept)
        yield Move(Act.SHRINK, "then nothing depends on the label any more")
    if scene.record is not None and scene.phase != ABORTING:
        yield Move(Act.CLAIM, "whoever comes later can go on or go back")
    if scene.rehearsal is not None:
        yield Move(Act.DISMISS, "it is not needed any more")
    if scene.record is not None and not scene.is_shown:
        yield Move(Act.WAIT, "until the EndpointSlices show that the selector of now is known")
    for subject in scene.subjects:
        yield from (_unplaced if wish.in_place else _rolled_back)(scene, subject, wish)
    if scene.record is not None:
        yield Move(Act.FINISH, "it is as it was before: the record goes")
    yield Move(Act.DONE, "it is as it was before")


def _rolled_back(scene: Scene, subject: Subject, wish: Wish) -> Iterator[Move]:
    name = subject.name
    marked = tuple(one.name for one in subject.editions if one.mark and not one.is_current)
    if marked:
        yield Move(Act.LABEL_REVISIONS, "as before", name, marked)
    if _gives(subject.labels, wish):
        yield Move(Act.LABEL_TEMPLATE, "as before: a rollout follows, by the Deployment's own strategy", name)
    if not subject.is_complete:
        yield Move(Act.WAIT, f"until the rollout of deploy/{name} is complete", name)
    yield from _undressed(scene, subject, wish)


def _unplaced(scene: Scene, subject: Subject, wish: Wish) -> Iterator[Move]:
    name, current = subject.name, subject.current
    if current is None or (not subject.is_paused and not subject.is_single):
        yield Move(Act.WAIT, f"until the Deployment controller has settled deploy/{name}", name)
        return
    labelled = tuple(
        one.name for one in subject.editions if (_gives(one.labels, wish) if one.is_current else bool(one.mark))
    )
    if labelled or _gives(subject.labels, wish):
        yield from _held_still(subject)
    if labelled:
        yield Move(Act.LABEL_REVISIONS, "as before", name, labelled)
    yield from _unseen(subject)
    yield from _undressed(scene, subject, wish)
    if _gives(subject.labels, wish):
        yield Move(Act.LABEL_TEMPLATE, "as before: there is nothing to roll out", name)
    yield from _let_go(subject)


def _undressed(scene: Scene, subject: Subject, wish: Wish) -> Iterator[Move]:
    """The pods that still have the label, none restarted."""
    own = tuple(
        one.name for one in scene.members if one.workload == subject.workload and not one.is_leaving and _has(one, wish)
    )
    if own:
        yield Move(Act.LABEL_PODS, "as before", subject.name, own)


def _gives(labels: dict[str, str], wish: Wish) -> bool:
    return labels.get(wish.key) == wish.value


def _is_other(member: Member, wish: Wish) -> bool:
    return member.labels.get(wish.key, wish.value) != wish.value


def _is_bare(member: Member, wish: Wish) -> bool:
    return wish.key not in member.labels


def _has(member: Member, wish: Wish) -> bool:
    return member.labels.get(wish.key) == wish.value


def _is_mistakable(edition: Edition) -> bool:
    """Whether it would equal the current one once that has the label: the Deployment takes the older of two."""
    return edition.is_twin and not edition.is_current and not edition.mark


def _lacks(subject: Subject, wish: Wish) -> bool:
    """Whether it makes, or would make, pods without the label."""
    live = (one.labels for one in subject.editions if one.replicas or one.is_current)
    return not all(_gives(labels, wish) for labels in (subject.labels, *live))


def _bare(scene: Scene, wish: Wish) -> tuple[str, ...]:
    """Pods of ours without the label; one with another value of it was taken out on purpose."""
    ours = {one.workload for one in scene.subjects}
    return tuple(one.name for one in scene.members if one.workload in ours and _is_bare(one, wish))


def _strange_members(scene: Scene, wish: Wish) -> tuple[str, ...]:
    """Pods of others that the Service would lose."""
    ours = {one.workload for one in scene.subjects}
    lost = (one for one in scene.members if one.workload not in ours and _is_bare(one, wish))
    found = [f"pod/{one.name}" if one.workload == "pod" else one.workload for one in lost]
    if wish.key not in scene.selector:
        found += [f"pod/{one.name}" for one in scene.members if _is_other(one, wish) and not one.is_leaving]
    return tuple(dict.fromkeys(found))


def _strange_sources(scene: Scene, wish: Wish) -> tuple[str, ...]:
    return tuple(name for name, labels in scene.sources if not _gives(labels, wish))
