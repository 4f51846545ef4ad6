"""The plan of a ``restore``: what a held pod gets back, what its ReplicaSet would make of that, who goes in its place.

A ReplicaSet that adopts a pod too many deletes one, unasked and undrained. So the pod gets its Services back first
while its owner is kept away by one label, then it changes places with a victim, and only then the victim is drained
(docs/decisions/0003).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from tidegate import vtime
from tidegate.client.holding import told
from tidegate.client.keeping import newness, owned_by
from tidegate.client.lease import is_at_work
from tidegate.client.options import VerbOptions
from tidegate.client.permissions import lacking
from tidegate.client.plan import PodPlan, Refusal, Step, label, plan_pod
from tidegate.drain.state import Mode, State
from tidegate.engine import owners
from tidegate.kube.api import ENDPOINTSLICES, PODS, SERVICES, Api, Selection
from tidegate.model import endpointslice, pod, service
from tidegate.model.names import HELD, TOMBSTONE, DrainRecord, decode_drain, decode_prepare
from tidegate.model.pod import Owner, Pod
from tidegate.model.service import Service
from tidegate.model.workload import Workload
from tidegate.traffic import LabelCut, held, isolation, selecting, serving_endpoints
from tidegate.traffic.labels import changed, severance

ADOPTED = State.SERVING.name
"""State of a record: everything is given back, the pods that go in its place are still to be drained."""


@dataclass(frozen=True, slots=True)
class RestorePlan(PodPlan):
    """``cut`` are the labels to give back, ``isolation`` the label that keeps ``workload``, its owner, away until it
    may have the pod; None where no label does, or nobody has let go of it. ``victim`` goes in its place: it is let go
    by ``parting``, with its traffic where there is an ``isolation``."""

    workload: Workload | None = None
    victim: Pod | None = None
    parting: LabelCut | None = None

    def steps(self, options: VerbOptions) -> tuple[Step, ...]:
        """What will be done, in order, each with its reason."""
        if self.refused(options):
            return ()
        back = Step(f"restore: set {_set(self.cut.labels) or 'nothing'}", "as it was before")
        services = ", ".join(map(str, self.services))
        listed = Step(f"wait until the EndpointSlices of {services} list it as ready") if services else None
        if self.workload is None or self.isolation is None:
            going = () if self.victim is None else (self._drained(), Step("as soon as that is cut, the following"))
            return (*going, *(step for step in (back, listed) if step is not None), *self._adopted())
        early = {**self.cut.labels, HELD: self.pod.labels.get(HELD), **self.isolation.labels}
        due = {key: value for key, value in early.items() if self.pod.labels.get(key) != value}
        first = (Step(f"restore its traffic: set {_set(due)}", f"{self.workload} waits"),) if due else ()
        parting = () if self.victim is None or self.parting is None else (
            Step(f"isolate pod/{self.victim.name}: set {_set(self.parting.labels)}", "it serves on"),
        )  # fmt: skip
        last = Step(f"give it back: set {_set(self.isolation_undone())}", f"{self.workload} adopts it")
        gone = () if self.victim is None else (self._drained(),)
        return (*first, *((listed,) if listed else ()), *parting, last, *gone)

    def isolation_undone(self) -> dict[str, str | None]:
        """The labels that let the owner have the pod."""
        keys = self.isolation.labels if self.isolation is not None else {}
        return {key: self.cut.labels.get(key, self.pod.labels.get(key)) for key in keys}

    def document(self, options: VerbOptions) -> dict[str, Any]:
        """The plan as ``--dry-run -o json`` prints it, with the ``victim`` (docs/json.md)."""
        found = PodPlan.document(self, options)
        return {**found, "labels": self.cut.labels, "victim": self.victim.name if self.victim is not None else None}

    def _drained(self) -> Step:
        assert self.victim is not None
        return Step(f"drain pod/{self.victim.name}, verified", f"{self.workload} would have a pod too many")

    def _adopted(self) -> tuple[Step, ...]:
        return () if self.workload is None else (Step(f"wait until {self.workload} has adopted it"),)


def _set(labels: Mapping[str, str | None]) -> str:
    return ", ".join(label(key, value) for key, value in sorted(labels.items()))


@dataclass(frozen=True, slots=True)
class _Found:
    """What was looked at."""

    subject: Pod
    record: DrainRecord
    services: tuple[Service, ...]
    controllers: tuple[Workload, ...]

    @property
    def owner(self) -> Workload | None:
        return self.controllers[0] if self.controllers else None

    @property
    def back(self) -> dict[str, str | None]:
        """The labels to give back: those we changed, and what ``prepare`` has made Services ask for since."""
        before = self.record.labels
        back = {key: before.get(key) for key in sorted({*self.record.changed, HELD, TOMBSTONE} & set(self._touched))}
        return {**back, **self._asked_since(changed(self.subject.labels, back))}

    def _asked_since(self, labels: dict[str, str]) -> dict[str, str | None]:
        """The labels of ``prepare`` that the pod's owner gives to every pod by now: with those of before alone it would
        be counted by its owner and get no traffic, for ever."""
        found: dict[str, str | None] = {}
        for one in self.services:
            record = decode_prepare(one.annotations)
            if record is None or record.key in self.record.labels:
                continue
            space, given = self.subject.namespace, {**labels, record.key: record.value}
            if one.selects(space, given) and not one.selects(space, labels):
                found[record.key] = record.value
        return found

    @property
    def after(self) -> Pod:
        """The pod once it has them."""
        return msgspec.structs.replace(self.subject, labels=changed(self.subject.labels, self.back))

    @property
    def is_let_go(self) -> bool:
        """Whether its owner has let go of it, and would take it back."""
        return bool(self.record.owner) and self.subject.owner is None

    @property
    def _touched(self) -> Iterable[str]:
        return {*self.subject.labels, *self.record.changed}


async def plan_restore(
    api: Api, target: tuple[str, str], options: VerbOptions, is_witnessed: bool, victim: str = ""
) -> RestorePlan:
    """Look, and plan; changes nothing. ``victim`` names the pod that goes in its place, empty for the newest.

    Raises ``KubeError`` (404 for an unknown pod) and ``Malformed``.
    """
    namespace, name = target
    subject = pod.decode(await api.get(PODS, name, namespace))
    listed = (service.decode(obj) for obj in (await api.list(SERVICES, Selection(namespace))).items)
    services = tuple(one for one in listed if not one.is_draining)
    slices = tuple(endpointslice.decode(obj) for obj in (await api.list(ENDPOINTSLICES, Selection(namespace))).items)
    record = decode_drain(subject.annotations)
    record = record if record is not None and record.mode == Mode.LABEL.value and record.labels else None
    bare = RestorePlan(
        verb="restore", pod=subject, cut=LabelCut({}, False, ()), isolation=None, services=(), serving=(), seen=(),
        refusals=tuple(_unheld(subject, record)), consequences=(), is_witnessed=is_witnessed, record=record,
    )  # fmt: skip
    if record is None or bare.refusals:
        return bare
    found = _Found(subject, record, services, await controllers_of(api, subject, record))
    refusals = [*_of_the_pod(found, options), *map(Refusal, await lacking(api, namespace, is_witnessed))]
    if found.is_let_go and record.state != ADOPTED:
        refusals += _of_the_owner(found)
    planned = replace(
        bare,
        cut=LabelCut(found.back, False, ("as it was before",)),
        services=selecting(found.after, services),
        serving=serving_endpoints(subject, slices),
        seen=record.seen,
        refusals=tuple(refusals),
        consequences=tuple(_by_hand(found)),
        owner=record.owner,
        workload=found.owner if found.is_let_go else None,
    )
    if refusals or not found.is_let_go or record.state == ADOPTED:
        return planned
    return await _with_victim(api, planned, found, options, victim)


async def _with_victim(api: Api, planned: RestorePlan, found: _Found, options: VerbOptions, named: str) -> RestorePlan:
    """Who goes, and how the pod is kept from its owner until then."""
    owner = found.owner
    assert owner is not None
    detour = isolation(found.after, found.services, owner)
    planned = replace(planned, isolation=detour)
    owned = [one for one in await owned_by(api, owner) if one.uid != found.subject.uid]
    if owner.kind == "DaemonSet":
        return replace(planned, refusals=(*planned.refusals, *_of_its_node(found, owner, owned)))
    recorded = [peer.partition("/")[2] for peer in found.record.peers]
    is_parted = any(uid not in {one.uid for one in owned} for uid in recorded)
    if len(owned) < (owner.replicas or 0) or is_parted:
        return planned  # there is room for it, or an earlier run has made some
    chosen = victim_of(owned, named, recorded)
    if chosen is None:
        why = f"pod/{named} is not one of the pods that {owner} has and nobody holds" if named else ""
        why = why or f"{owner} has as many pods as it wants, and every one of them is held"
        way_out = f"choose another with --drain, of: {', '.join(sorted(one.name for one in owned))}"
        return replace(planned, refusals=(*planned.refusals, Refusal(why, way_out=way_out)))
    if not chosen.ips:
        why = f"{owner} deletes pod/{chosen.name} in its place, which has not started yet"
        return replace(planned, consequences=(*planned.consequences, why))
    parting = isolation if detour is not None else severance
    target = (chosen.namespace, chosen.name)
    its = await plan_pod(api, target, "drain", replace(options, replace=False), planned.is_witnessed)
    # With the other one back in traffic there is one more: floors and budgets are asked once it is.
    against = [one for one in its.refusals if detour is None or not one.is_floor]
    refusals = [Refusal(f"pod/{chosen.name}: {one.reason}", one.is_floor, one.way_out) for one in against]
    dips = () if detour is not None else ("capacity dips by one: no label keeps its owner away while it serves again",)
    return replace(
        planned,
        victim=chosen,
        parting=parting(chosen, found.services, owner),
        refusals=(*planned.refusals, *refusals),
        consequences=(*planned.consequences, f"pod/{chosen.name} is drained in its place", *dips),
    )


def _of_its_node(found: _Found, owner: Workload, owned: Iterable[Pod]) -> Iterator[Refusal]:
    """A DaemonSet that has replaced a pod on its node deletes one of the two as soon as it has both."""
    subject = found.subject
    for one in owned:
        if one.node == subject.node:
            yield Refusal(
                f"{owner} has pod/{one.name} on {one.node} by now and runs one pod a node: it would delete one at once",
                way_out=f"`tidegate drain pod/{subject.name} -n {subject.namespace}` retires it",
            )


def victim_of(owned: Iterable[Pod], named: str = "", recorded: Iterable[str] = ()) -> Pod | None:
    """Who goes: as named, as recorded by an earlier run, else the newest of those that are not ready, else of all."""
    free = [one for one in owned if held(one) is None or one.uid in recorded]
    if named:
        return next((one for one in free if one.name == named), None)
    known = [one for one in free if one.uid in recorded]
    waiting = [one for one in free if not one.is_ready]
    return max(known or waiting or free, key=newness, default=None)


async def controllers_of(api: Api, subject: Pod, record: DrainRecord) -> tuple[Workload, ...]:
    """The pod's owner of before, and that one's. One that is gone says so (``is_ending``)."""
    parts = record.owner.split("/")
    if len(parts) != 3:
        return ()
    before = msgspec.structs.replace(subject, owner=Owner(*parts))
    return await owners.of(api, before)


def _unheld(subject: Pod, record: DrainRecord | None) -> Iterator[Refusal]:
    if record is None and HELD in subject.labels:
        yield Refusal(
            f"{subject} is labelled as held and has no record: its labels before are not known",
            way_out=f"put them right by hand, or `tidegate drain pod/{subject.name} -n {subject.namespace}`",
        )
    elif record is None:
        yield Refusal(
            f"{subject} is not held: there is nothing to restore",
            way_out=f"`tidegate status -n {subject.namespace} --orphans` lists what is",
        )
    if subject.is_terminating or subject.is_finished:
        yield Refusal(f"{subject} {'is being deleted' if subject.is_terminating else 'has ended'} already")


def _of_the_pod(found: _Found, options: VerbOptions) -> Iterator[Refusal]:
    subject, record = found.subject, found.record
    if is_at_work(record, options.identity, vtime.now()):
        yield Refusal(told(subject, record), way_out="wait for its end, or for the end of that process")
    if not subject.is_ready and record.state != ADOPTED:
        yield Refusal(
            f"{subject} is not Ready: it would get no traffic"
            + (", and its owner deletes such a one first" if found.is_let_go else ""),
            way_out=f"wait until it is, or `tidegate drain pod/{subject.name} -n {subject.namespace}`",
        )
    for key, value in record.changed.items():
        now = subject.labels.get(key)
        if now not in (value, record.labels.get(key)):
            ours = f"{label(key, value)}{'' if value is None else ' --overwrite'}"
            was = label(key, record.labels.get(key))
            yield Refusal(
                f"{label(key, now)} was set by hand since: it was {was}, then {label(key, value)}",
                way_out=f"`kubectl label pod/{subject.name} {ours}`, then again",
            )
    for key in _changed_by_hand(found):
        who = _looks_at(found, key)
        if who is not None:
            was, now = label(key, record.labels.get(key)), label(key, subject.labels.get(key))
            yield Refusal(
                f"{was} was changed by hand to {now}, and {who} looks at it",
                way_out=f"put it right by hand, or `tidegate drain pod/{subject.name} -n {subject.namespace}`",
            )


def _looks_at(found: _Found, key: str) -> Service | Workload | None:
    looking: list[Service | Workload] = [*found.services, *found.controllers]
    return next((one for one in looking if key in _keys(one)), None)


def _keys(one: Service | Workload) -> tuple[str, ...]:
    return one.selector.keys if one.selector is not None else ()


def _changed_by_hand(found: _Found) -> list[str]:
    """Labels of before that are another value now and that we have not touched."""
    before, now = found.record.labels, found.subject.labels
    return [key for key in sorted(before) if now.get(key) != before[key] and key not in found.record.changed]


def _by_hand(found: _Found) -> Iterator[str]:
    now = found.subject.labels
    for key in (one for one in _changed_by_hand(found) if _looks_at(found, one) is None):
        yield f"{label(key, found.record.labels[key])} was changed by hand to {label(key, now.get(key))}: it stays so"


def _of_the_owner(found: _Found) -> Iterator[Refusal]:
    """Why the owner of before would not keep the pod."""
    way_out = f"`tidegate drain pod/{found.subject.name} -n {found.subject.namespace}` retires it"
    kind, name, _ = found.record.owner.split("/")
    owner = found.owner
    if owner is None:
        yield Refusal(f"its owner {kind} {name} is of a kind that is not known here", way_out=way_out)
    elif owner.is_ending:
        yield Refusal(f"{owner}, which had it, is gone or was made anew: nobody would keep it", way_out=way_out)
    elif owner.kind != "DaemonSet" and not owner.replicas:
        yield Refusal(f"{owner} wants no pods: it would adopt it and delete it at once", way_out=way_out)
    elif len(found.controllers) > 1 and is_superseded(owner, found.controllers[1]):
        newer = found.controllers[1]
        yield Refusal(
            f"{owner} is revision {owner.revision} of {newer}, which is at {newer.revision}: it would be adopted and "
            "deleted at once",
            way_out=way_out,
        )


def is_superseded(owner: Workload, topmost: Workload) -> bool:
    """Whether a ReplicaSet is of an older revision than its Deployment: it will be scaled away."""
    return not topmost.is_ending and topmost.revision > owner.revision
