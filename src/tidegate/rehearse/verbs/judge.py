"""What contradicts the verbs' words, from the kernels' journal and the API's objects alone. Pure.

- A pod recorded ``verified`` was routed to by nobody when it was told to stop, and had no connection.
- Nobody routed or gave a connection to a pod once its cut was called ``verified``, until somebody gave it back.
- No request is lost but on pods that were told to stop and are not ``verified``.
- No cut leaves a Service fewer other ready pods than its floor.
- Where nobody scales, updates or deletes, nothing but a verb ends a pod.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tidegate.model.names import HELD_CUT, Ending
from tidegate.rehearse.contradiction import contradictions
from tidegate.rehearse.footage import Focus, Footage, develop
from tidegate.rehearse.samples import Sample
from tidegate.rehearse.spectator import PodSeen
from tidegate.rehearse.stage import Entry
from tidegate.rehearse.timeline import PodTrack
from tidegate.rehearse.verbs.camera import Camera, Filmed
from tidegate.rehearse.verbs.deeds import Deed
from tidegate.rehearse.verbs.scene import NS, PORT, Scene

RECENT_SECONDS = 15.0
"""What left a Service so shortly before a cut, by no verb, may not have been seen when the floor was counted."""


@dataclass(frozen=True, slots=True)
class Case:
    """Everything the judge may look at."""

    scene: Scene
    camera: Camera
    deeds: Sequence[Deed]
    samples: Sequence[Sample]
    entries: Sequence[Entry]


@dataclass(frozen=True, slots=True)
class Verdict:
    """``findings``: a sentence for each broken promise, there must be none. ``lost`` requests, by why they may be."""

    findings: tuple[str, ...]
    lost: dict[str, int]


def judge(case: Case) -> Verdict:
    """All of it."""
    footage = develop(case.entries, Focus(NS, f"{NS}/"))
    pods = list(case.camera.pods.values())
    tracks = [_track(one, pods, footage) for one in pods]
    lost: dict[str, int] = {}
    findings = [
        *contradictions(tracks, footage, is_exact=True),
        *_routed_again(case, footage),
        *_losses(case, footage, tracks, lost),
        *_floors(case),
        *(_ended(case, tracks) if case.scene.is_steady else ()),
        *(f"crashed: {deed}" for deed in case.deeds if deed.word == "crashed"),
    ]
    return Verdict(tuple(findings), lost)


def _track(one: Filmed, pods: Iterable[Filmed], footage: Footage) -> PodTrack:
    life = footage.lives.get(one.uid)
    seen = PodSeen(one.name, one.uid, "", one.created_at, one.node, one.ip, result=one.result)
    return PodTrack(seen, True, (), sigterm_at=None if life is None else life.sigterm_at)


def _routed_again(case: Case, footage: Footage) -> Iterator[str]:
    """A cut that was verified, and what reached the pod before anybody gave it back."""
    by_service = {name: develop(case.entries, Focus(NS, f"{NS}/{name}:")) for name in case.scene.services}
    for deed in case.deeds:
        if deed.wish.verb not in ("cut", "sever") or deed.word != Ending.VERIFIED.value or deed.until is None:
            continue
        pod = next((one for one in case.camera.pods.values() if one.name == deed.wish.target), None)
        if pod is None:
            continue
        since, until = deed.until, _given_back(deed, pod, case, footage)
        where = f"{pod.ip}:{PORT}"
        for name in deed.wish.options.services or tuple(by_service):
            for node in sorted(by_service[name].commits):
                for begin, end in by_service[name].routed(node, where):
                    if end > since and begin < until:
                        yield f"{node} routed svc/{name} to {pod.name} {max(0.0, begin - since):.3f} s after: {deed}"
        if not deed.wish.options.services:
            for one in footage.connections.get(where, ()):
                if since < one.opened_at < until:
                    yield f"{one.node} gave {pod.name} a connection {one.opened_at - since:.3f} s after: {deed}"


def _given_back(deed: Deed, pod: Filmed, case: Case, footage: Footage) -> float:
    """When the promise of ``deed`` ended: somebody began what may give its labels back, or the pod was over."""
    assert deed.until is not None
    over = footage.lives[pod.uid].sigterm_at if pod.uid in footage.lives else None
    ends = [over if over is not None else math.inf, pod.gone_at if pod.gone_at is not None else math.inf]
    for other in case.deeds:
        is_giving = other.wish.verb == "restore" or other.wish.options.on_deadline == "restore"
        # A killed process is no more; any other is at work until its end.
        is_late = other.at >= deed.until or other.until is None or other.until > deed.at
        if other is not deed and other.wish.target == pod.name and is_giving and is_late:
            ends.append(max(other.at, deed.until))
    return min(ends)


def _losses(case: Case, footage: Footage, tracks: Sequence[PodTrack], lost: dict[str, int]) -> Iterator[str]:
    by_address: dict[str, list[PodTrack]] = {}
    for track in tracks:
        by_address.setdefault(f"{track.seen.ip}:{PORT}", []).append(track)
    for sample in case.samples:
        if not sample.is_lost:
            continue
        endpoint = footage.endpoint_of(sample.source, sample.port, sample.ended_at)
        found = [one for one in by_address.get(endpoint, ()) if one.seen.created_at <= sample.ended_at]
        if not found:
            lost["nowhere"] = lost.get("nowhere", 0) + 1
            yield f"a request of {sample.source} at {sample.ended_at % 10000:.2f} was lost, {sample.outcome}, nowhere"
            continue
        track = max(found, key=lambda one: one.seen.created_at)
        result = track.seen.result
        if track.sigterm_at is None or track.sigterm_at > sample.ended_at:
            why = "serving"
            yield (
                f"a request of {sample.source} at {sample.ended_at % 10000:.2f} was lost, {sample.outcome}, on"
                f" {track.seen.name}, which nobody had told to stop"
            )
        else:
            why = "no result" if result is None else result.result.value
            if why == Ending.VERIFIED.value:
                yield f"{track.seen.name} is verified and lost a request of {sample.source}, {sample.outcome}"
        lost[why] = lost.get(why, 0) + 1


def _floors(case: Case) -> Iterator[str]:
    """At each cut: how many other pods of each Service it left were ready then."""
    pods = list(case.camera.pods.values())
    for pod in pods:
        for before, after in pairwise(pod.frames):
            if after.held != HELD_CUT or not before.is_ready:
                continue
            for service in case.scene.services:
                selector = case.camera.selector(service, after.at)
                if not before.matches(selector) or after.matches(selector):
                    continue
                others = [one for one in pods if one is not pod and _serves(one, selector, after.at)]
                passing = [one for one in pods if one not in others and _left_by_itself(one, selector, after.at)]
                if len(others) + len(passing) < case.scene.floor:
                    at = f"{after.at % 10000:.2f}"
                    yield f"the cut of {pod.name} at {at} left svc/{service} {len(others)} of {case.scene.floor} pods"


def _serves(one: Filmed, selector: dict[str, str], at: float) -> bool:
    frame = one.frame(at)
    return frame is not None and frame.is_ready and not frame.is_leaving and frame.matches(selector)


def _left_by_itself(one: Filmed, selector: dict[str, str], at: float) -> bool:
    return any(
        before.is_ready and not before.is_leaving and before.matches(selector) and after.held != HELD_CUT
        for before, after in pairwise(one.frames)
        if at - RECENT_SECONDS < after.at <= at
    )


def _ended(case: Case, tracks: Sequence[PodTrack]) -> Iterator[str]:
    """Pods that served, and that somebody else than a verb ended: an owner that was given one too many."""
    pods = case.camera.pods
    for track in tracks:
        frames = pods[track.seen.uid].frames
        was_serving = any(one.is_leaving and before.is_ready for before, one in pairwise(frames))
        if was_serving and track.seen.result is None:
            at = next(one.at for one in frames if one.is_leaving)
            yield f"{track.seen.name} was ended at {at % 10000:.2f}, and no verb did that"
