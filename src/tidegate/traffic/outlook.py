"""What ``prepare`` will do, foreseen: its moves, each applied to a model of the cluster that answers as hoped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tidegate.model.names import PrepareRecord
from tidegate.traffic.preparation import (
    ABORTING,
    PAUSED,
    PREPARED,
    PREPARING,
    RESUMING,
    VERIFYING,
    Act,
    Edition,
    Member,
    Move,
    Scene,
    Subject,
    Wish,
    next_move,
)

_MOVES_MAX = 200


def outline(scene: Scene, wish: Wish) -> tuple[Move, ...]:
    """The moves from here to the end (or to where it is stuck, that move last), if nobody else changes anything."""
    found: list[Move] = []
    while len(found) < _MOVES_MAX:
        move = next_move(scene, wish)
        if move.act is Act.DONE:
            break
        found.append(move)
        if move.act is Act.STUCK:
            break
        scene = after(scene, move, wish)
    return tuple(found)


def after(scene: Scene, move: Move, wish: Wish) -> Scene:
    """The scene once ``move`` is made; a WAIT is over when all that was waited for has come."""
    match move.act:
        case Act.LABEL_PODS:
            return _members(scene, lambda one: one.name in move.names, wish)
        case Act.WAIT:
            awaited = scene if move.subject else _listed(scene)
            return awaited if not move.subject else _settled(scene, move.subject, wish)
        case Act.REHEARSE:
            return replace(scene, rehearsal={**scene.selector, wish.key: wish.value})
        case Act.DISMISS:
            return replace(scene, rehearsal=None)
        case Act.CLAIM | Act.EXTEND | Act.SHRINK | Act.FINISH:
            return _service(scene, move.act, wish)
        case _:
            found = tuple(_subject(one, move, wish) if one.name == move.subject else one for one in scene.subjects)
            return replace(scene, subjects=found)


def _service(scene: Scene, act: Act, wish: Wish) -> Scene:
    selector = {key: value for key, value in scene.selector.items() if key != wish.key}
    if act is Act.EXTEND:
        return replace(scene, selector={**selector, wish.key: wish.value}, record=_record(wish, VERIFYING))
    if act is Act.SHRINK:
        phase = scene.phase if wish.is_abort else PREPARING
        return replace(scene, selector=selector, record=_record(wish, phase))
    if act is Act.CLAIM:
        return replace(scene, record=_record(wish, ABORTING if wish.is_abort else PREPARING))
    return replace(scene, record=None if wish.is_abort else _record(wish, PREPARED))


def _record(wish: Wish, phase: str, turn: str = "") -> PrepareRecord:
    return PrepareRecord("", phase, wish.key, wish.value, wish.in_place, round=turn)


def _labels(labels: dict[str, str], wish: Wish) -> dict[str, str]:
    bare = {key: value for key, value in labels.items() if key != wish.key}
    return bare if wish.is_abort else {**bare, wish.key: wish.value}


def _members(scene: Scene, is_meant: Callable[[Member], bool], wish: Wish) -> Scene:
    found = tuple(replace(one, labels=_labels(one.labels, wish)) if is_meant(one) else one for one in scene.members)
    return replace(scene, members=found)


def _listed(scene: Scene) -> Scene:
    """The EndpointSlice controller knows everything as it is."""
    found = tuple(replace(one, is_listed=True, is_rehearsed=scene.rehearsal is not None) for one in scene.members)
    return replace(scene, members=found, is_shown=True)


def _subject(subject: Subject, move: Move, wish: Wish) -> Subject:
    turn = f"{subject.text}."
    match move.act:
        case Act.LABEL_REVISIONS:
            named = move.names
            found = tuple(_relabelled(one, wish) if one.name in named else one for one in subject.editions)
            return replace(subject, editions=found)
        case Act.LABEL_TEMPLATE if wish.in_place:
            announced = replace(subject, record=_record(wish, RESUMING, turn), text=turn, is_observed=False)
            return replace(announced, labels=_labels(subject.labels, wish))
        case Act.LABEL_TEMPLATE:
            return replace(subject, labels=_labels(subject.labels, wish), is_complete=False, is_single=False)
        case Act.PAUSE:
            return replace(subject, is_paused=True, is_observed=False, record=_record(wish, PAUSED, turn), text=turn)
        case Act.ANNOUNCE:
            return replace(subject, record=_record(wish, RESUMING, turn), text=turn)
        case Act.RESUME:
            return replace(subject, is_paused=False, record=None, text="", is_single=False, is_observed=False)
        case Act.CLEAN:
            return replace(subject, editions=tuple(replace(one, copy="") for one in subject.editions))
    return subject


def _relabelled(edition: Edition, wish: Wish) -> Edition:
    if wish.is_abort:
        kept = edition.mark == "kept"
        return replace(edition, mark="", labels=edition.labels if kept else _labels(edition.labels, wish))
    had = edition.labels.get(wish.key) == wish.value
    mark = "" if edition.is_current else "kept" if had else "given"
    return replace(edition, mark=mark, labels=_labels(edition.labels, wish))


def _settled(scene: Scene, name: str, wish: Wish) -> Scene:
    """Every controller has seen ``name``, and has done what follows from it."""
    subject = next(one for one in scene.subjects if one.name == name)
    current = subject.current
    editions = tuple(replace(one, is_observed=True) for one in subject.editions)
    has_rolled = False
    if current is None or (current.labels != subject.labels and not subject.is_paused):
        fitting = next((one for one in editions if one.labels == subject.labels and not one.mark), None)
        made = fitting or Edition(f"{name}-next", subject.labels, 0, True)
        size = sum(one.replicas for one in editions)
        others = tuple(
            replace(one, replicas=0, is_current=False) for one in editions if fitting is None or one.name != made.name
        )
        editions = (*others, replace(made, replicas=size, is_current=True, is_observed=True))
        has_rolled = True
    elif current.labels == subject.labels and subject.record is not None:
        editions = tuple(replace(one, copy=subject.text) if one.is_current else one for one in editions)
    done = replace(subject, editions=editions, is_observed=True, is_single=True, is_complete=True)
    scene = replace(scene, subjects=tuple(done if one.name == name else one for one in scene.subjects))
    return _members(scene, lambda one: one.workload == subject.workload, wish) if has_rolled else scene
