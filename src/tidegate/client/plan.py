"""The plan of a drain: what will change, what follows from it, and why it may have to be refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from tidegate import vtime
from tidegate.client import scraping
from tidegate.client.activity import activity_of, unaskable
from tidegate.client.guards import read_guards
from tidegate.client.holding import told
from tidegate.client.lease import is_at_work
from tidegate.client.options import Verb, VerbOptions
from tidegate.client.permissions import lacking
from tidegate.drain.state import Mode
from tidegate.engine import owners
from tidegate.engine.act import reservations
from tidegate.kube.api import (
    ENDPOINTSLICES,
    PODS,
    SERVICES,
    Api,
    JsonObject,
    Selection,
)
from tidegate.model import endpointslice, pod, service
from tidegate.model.endpoint import Endpoint
from tidegate.model.names import DrainRecord, decode_drain
from tidegate.model.pod import Pod
from tidegate.model.service import Service
from tidegate.model.workload import Workload
from tidegate.traffic import (
    Floor,
    LabelCut,
    cut,
    floors,
    isolation,
    listings,
    not_isolated,
    selecting,
    serving_endpoints,
)
from tidegate.traffic.labels import changed
from tidegate.traffic.ownership import claim_on

ISOLATED = "ISOLATED"
"""State of a record: its owner has let go of the pod, its traffic has not."""
WAIT_FOR_BUDGET = "wait until its pods are ready again, scale up, or --force"
SCALE_UP = "scale up first, choose another --floor, or --force"
ANOTHER_LABEL = "give the Service a label that nothing else looks at: `tidegate prepare`"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A guard that would be breached. ``is_floor``: force overrides it. ``way_out``: what to do instead.

    ``is_budget``: one that force overrides unless the options keep budgets. ``is_passing``: it goes away by itself.
    """

    reason: str
    is_floor: bool = False
    way_out: str = ""
    is_budget: bool = False
    is_passing: bool = False

    def is_overridden(self, options: VerbOptions) -> bool:
        """Whether force reaches it."""
        return self.is_floor and options.force and not (self.is_budget and options.keeps_budgets)

    def __str__(self) -> str:
        return f"{self.reason}; {self.way_out}" if self.way_out else self.reason


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that will be done, and why."""

    what: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.what} ({self.reason})" if self.reason else self.what


@dataclass(frozen=True, slots=True)
class PodPlan:
    """What a verb is to do to one pod. ``record`` is what somebody began and left: it is continued.

    ``isolation``: the labels by which its owner lets go of it while its traffic stays; None where no label does that
    (or it was done). ``owner`` is kind/name/uid of the controller that has it. ``widens``: an earlier cut left it in
    some Services (``--service``) that it leaves now.
    """

    verb: Verb
    pod: Pod
    cut: LabelCut
    isolation: LabelCut | None
    services: tuple[Service, ...]
    serving: tuple[Endpoint, ...]
    seen: tuple[str, ...]
    refusals: tuple[Refusal, ...]
    consequences: tuple[str, ...]
    is_witnessed: bool
    owner: str = ""
    record: DrainRecord | None = None
    widens: bool = False

    @property
    def is_uncut(self) -> bool:
        """Whether it is about to leave Services that nobody has counted it out of yet."""
        return self.record is None or self.record.state == ISOLATED or self.widens

    @property
    def leaving(self) -> tuple[Service, ...]:
        """Of ``services``, those whose floors count now: a pod that has left some before leaves only the others."""
        if not self.widens:
            return self.services
        return tuple(one for one in self.services if one.selects(self.pod.namespace, self.pod.labels))

    def awaits(self, options: VerbOptions) -> bool:
        """Whether its replacement is seen routed before it is cut."""
        is_isolated = self.record is not None and self.record.state == ISOLATED
        return self.isolation is not None or (is_isolated and options.replaces(self.verb))

    def refused(self, options: VerbOptions) -> tuple[str, ...]:
        """What stands against it under ``options``."""
        return tuple(str(one) for one in self.refusals if not one.is_overridden(options))

    def forced(self, options: VerbOptions) -> str:
        """What force overrides; empty for nothing."""
        return "; ".join(one.reason for one in self.refusals if one.is_overridden(options))

    def steps(self, options: VerbOptions) -> tuple[Step, ...]:
        """What will be done, in order, each with its reason."""
        found = []
        if self.record is not None:
            found.append(
                Step(
                    f"continue the {self.record.verb} of {self.record.at or 'before'}",
                    f"it stands at {self.record.state}",
                )
            )
        if self.isolation is not None:
            changes = ", ".join(label(key, value) for key, value in sorted(self.isolation.labels.items()))
            found.append(Step(f"isolate: set {changes}", "; ".join(self.isolation.reasons)))
        if self.awaits(options):
            found.append(_replacement_step(self, options))
        changes = ", ".join(label(key, value) for key, value in sorted(self.cut.labels.items()))
        because = "; ".join(self.cut.reasons) or "no Service selects it"
        found.append(Step(f"cut: set {changes}" if changes else "cut: nothing to change", because))
        if self.is_witnessed:
            found.append(Step("wait until every node shows a fence written after the cut, and no route"))
        else:
            found.append(
                Step(f"wait {options.settle_seconds:g} s", "there is no coordinator to ask, the result is assumed")
            )
        if self.verb == "drain":
            if self.is_witnessed:
                found.append(Step(f"wait until no connection is in flight at {_names(self.serving)}"))
            activity = activity_of(self.pod, options)
            if activity is not None:
                found.append(Step(f"wait until the pod itself says that it is idle: {activity}"))
            found.append(Step("put a tombstone on it, verify once more, then delete it by uid and resourceVersion"))
        first = f"{options.timeout_seconds:g} s for the replacement and as long" if self.awaits(options) else ""
        seconds = first or f"{options.timeout_seconds:g} s"
        found.append(Step(f"at the deadline, {seconds} from the cut: {options.on_deadline}"))
        return tuple(found)

    def document(self, options: VerbOptions) -> dict[str, Any]:
        """The plan as ``--dry-run -o json`` prints it (docs/json.md)."""
        labels = {**(self.isolation.labels if self.isolation else {}), **self.cut.labels}
        return {
            "verb": self.verb,
            "namespace": self.pod.namespace,
            "pod": self.pod.name,
            "node": self.pod.node,
            "labels": labels,
            "services": [str(one) for one in self.services],
            "witnessed": self.is_witnessed,
            "steps": [{"what": step.what, "reason": step.reason} for step in self.steps(options)],
            "consequences": list(self.consequences),
            "refusals": [
                {"reason": one.reason, "wayOut": one.way_out, "overridable": one.is_floor} for one in self.refusals
            ],
        }


def label(key: str, value: str | None) -> str:
    """A label as kubectl writes it: ``key=value``, or ``key-`` to remove one."""
    return f"{key}-" if value is None else f"{key}={value}"


def _names(endpoints: tuple[Endpoint, ...]) -> str:
    return ", ".join(map(str, endpoints)) or "its address"


async def plan_pod(api: Api, target: tuple[str, str], verb: Verb, options: VerbOptions, is_witnessed: bool) -> PodPlan:
    """Look at the pod ``target`` (namespace, name), and plan; changes nothing.

    Raises ``KubeError`` (404 for an unknown pod) and ``Malformed``.
    """
    namespace, name = target
    obj = await api.get(PODS, name, namespace)
    subject = pod.decode(obj)
    listed = (service.decode(obj) for obj in (await api.list(SERVICES, Selection(namespace))).items)
    services = tuple(one for one in listed if not one.is_draining)
    slices = tuple(endpointslice.decode(obj) for obj in (await api.list(ENDPOINTSLICES)).items)
    record = _continued(subject)
    controllers = tuple(one for one in await owners.of(api, subject) if not one.is_ending)
    now = selecting(subject, services)
    asked = tuple(one for one in now if not options.services or one.name in options.services)
    widens = record is not None and record.state != ISOLATED and any(_was_kept(one, record) for one in asked)
    is_uncut = record is None or record.state == ISOLATED or widens
    isolated = _isolation(subject, services, controllers) if record is None and options.replaces(verb) else None
    is_replaced = isolated is not None or (record is not None and is_uncut and options.replaces(verb))
    let_go = isolated.labels if isolated is not None else {}
    after = msgspec.structs.replace(subject, labels=changed(subject.labels, let_go))
    planned = cut(after, asked if options.services else services, controllers[0].selector if controllers else None)
    touched = {**let_go, **planned.labels}
    # A label may be another Service's too: its floor counts as well.
    left = changed(subject.labels, touched)
    chosen = tuple(one for one in now if one in asked or not one.selects(namespace, left))
    guards = await read_guards(api, namespace, controllers)
    seen = tuple(sorted({found.service for found in listings(subject, slices)} | set(record.seen if record else ())))
    refusals = [
        *_of_itself(subject, verb, record),
        *_unknown(options.services, services, subject, record),
        *(Refusal(why) for why in unaskable(subject, options) if verb == "drain"),
        *_at_work(subject, record, options),
        *(Refusal(why) for why in await lacking(api, namespace, is_witnessed, verb == "drain")),
    ]
    if is_uncut:
        refusals += _not_seen(chosen, seen)
        leaving = {uid for one in chosen for uid in reservations(one) if uid != subject.uid}
        kept = floors(subject, chosen, slices, options.floor, leaving)
        refusals += [Refusal(str(floor), True, SCALE_UP) for floor in kept if not _holds(floor, is_replaced)]
        # A replacement is one more healthy pod to every budget: whether that is enough is asked once it is there.
        refusals += [
            Refusal(reason, is_floor=True, is_budget=True, way_out=WAIT_FOR_BUDGET)
            for reason in guards.breached(subject)
            if not is_replaced
        ]
        refusals += [Refusal(reason, way_out=ANOTHER_LABEL) for reason in guards.severed(subject, touched)]
        refusals += [Refusal(reason) for reason in guards.unread]
        refusals += _claimed(obj, subject, touched)
    labels = subject.labels if record is None else record.labels
    # What counted it out has to count it in again, though it would not select it by now (``prepare`` meanwhile).
    before = tuple(one for one in services if one.selects(namespace, labels) or subject.uid in reservations(one))
    return PodPlan(
        verb=verb,
        pod=subject,
        cut=planned,
        isolation=isolated,
        services=chosen if record is None else tuple(one for one in before if one in chosen or one not in now),
        serving=serving_endpoints(subject, slices) or _declared(subject, before),
        seen=seen,
        refusals=tuple(refusals),
        consequences=(
            *_consequences(planned, controllers, is_replaced),
            *(f"{one} loses it too: it selects by {one.selector}" for one in chosen if one not in asked),
            *(f"{one} goes on sending to it" for one in now if one not in chosen),
            *await scraping.lacking(api, namespace),
            *(() if is_replaced or not is_uncut else _dips(subject, services, controllers, options.replaces(verb))),
            *guards.consequences(subject, touched, planned.releases or isolated is not None),
        ),
        is_witnessed=is_witnessed,
        widens=widens,
        owner="" if subject.owner is None else f"{subject.owner.kind}/{subject.owner.name}/{subject.owner.uid}",
        record=record,
    )


def _at_work(subject: Pod, record: DrainRecord | None, options: VerbOptions) -> Iterable[Refusal]:
    if record is not None and is_at_work(record, options.identity, vtime.now()):
        yield Refusal(
            told(subject, record), way_out="wait for its end, or for the end of that process", is_passing=True
        )


def _continued(subject: Pod) -> DrainRecord | None:
    """A label drain that was begun on this pod. A gate's record is the node agent's business."""
    record = decode_drain(subject.annotations)
    return record if record is not None and record.mode == Mode.LABEL.value and record.labels else None


def _of_itself(subject: Pod, verb: Verb, record: DrainRecord | None) -> Iterable[Refusal]:
    if subject.is_terminating:
        yield Refusal(f"{subject} is being deleted already: its gate, if it has one, drains it")
    if verb != "drain" and record is not None and record.sealed:
        yield Refusal(
            f"{subject} is about to be deleted by a drain",
            way_out=f"`tidegate restore pod/{subject.name} -n {subject.namespace}`",
        )
    if subject.is_finished:
        yield Refusal(f"{subject} has ended ({subject.phase}): there is nothing to drain")
    if not subject.ips and not subject.is_finished:
        yield Refusal(f"{subject} has no address yet: there is nothing to drain, delete it")
    if subject.host_network and not subject.ports:
        yield Refusal(f"{subject} uses its node's network and declares no port: its routes cannot be told apart")


def _not_seen(services: Iterable[Service], seen: tuple[str, ...]) -> Iterable[Refusal]:
    """Absence that was never presence proves nothing: first it must have been seen there."""
    for one in services:
        if str(one) not in seen:
            yield Refusal(f"not seen in the EndpointSlices of {one} yet: try again in a moment", is_passing=True)


def _declared(subject: Pod, services: Iterable[Service]) -> tuple[Endpoint, ...]:
    """Where a pod that no slice lists any more served: its Services' target ports."""
    named = {port.name: port.number for port in subject.ports if port.name}
    numbers = set()
    for one in services:
        for port in one.ports:
            target = port.target_port
            number = target if isinstance(target, int) else named.get(target, 0)
            if number and port.protocol == "TCP":
                numbers.add(number)
    return tuple(Endpoint(ip, number) for ip in subject.ips for number in sorted(numbers))


def _claimed(obj: JsonObject, subject: Pod, touched: Mapping[str, str | None]) -> Iterable[Refusal]:
    """Who would put the labels back. A pod that has an owner has its labels, and its manager's marks, from a template:
    nobody compares these with anything."""
    claim = claim_on(obj, [("metadata", "labels", key) for key in sorted(touched)]) if touched else None
    if claim is not None and subject.owner is None:
        keys = ", ".join(label(key, value) for key, value in sorted(touched.items()))
        yield Refusal(
            f"{subject}: {claim}, it would put back what we change", way_out=f"set {keys} where it is managed"
        )


def _was_kept(one: Service, record: DrainRecord) -> bool:
    """Whether the cut of ``record`` left the pod in ``one``, on purpose."""
    if not record.changed:
        return False
    after = changed(record.labels, record.changed)
    return one.selects(one.namespace, record.labels) and one.selects(one.namespace, after)


def _unknown(
    wanted: tuple[str, ...], services: Iterable[Service], subject: Pod, record: DrainRecord | None
) -> Iterable[Refusal]:
    """A Service that is named and does not select the pod is a slip of the pen: nothing would be cut, and said so."""
    by_name = {one.name: one for one in services}
    labels = (subject.labels, record.labels if record is not None else {})
    for name in wanted:
        one = by_name.get(name)
        if one is None:
            yield Refusal(f"there is no Service {name} in namespace {subject.namespace}")
        elif not any(one.selects(subject.namespace, each) for each in labels):
            way_out = f"`tidegate status pod/{subject.name} -n {subject.namespace} --why` names those that do"
            yield Refusal(f"{one} does not select {subject}: {one.selector}", way_out=way_out)


def _isolation(subject: Pod, services: tuple[Service, ...], controllers: tuple[Workload, ...]) -> LabelCut | None:
    """An owner that wants no pods makes no replacement."""
    if not controllers or not controllers[0].replicas:
        return None
    return isolation(subject, services, controllers[0])


def _holds(floor: Floor, is_replaced: bool) -> bool:
    """Where its replacement comes to be is not known yet, so what is bound to a node or a zone it does not mend."""
    return floor.is_kept or (is_replaced and not floor.scope and floor.left + 1 >= floor.needed)


def _replacement_step(plan: PodPlan, options: VerbOptions) -> Step:
    kind, _, rest = (plan.record.owner if plan.record is not None else plan.owner).partition("/")
    owner = f"{kind} {rest.partition('/')[0]}" if kind else "its owner"
    where = ", routed on every node" if plan.is_witnessed else f", listed for {options.settle_seconds:g} s"
    services = ", ".join(str(one) for one in plan.services)
    what = f"wait until {owner} has as many ready pods as it wants{where if services else ''}"
    return Step(what, f"then floors and budgets are checked{f', and {services} reserved' if services else ''}")


def _dips(
    subject: Pod, services: tuple[Service, ...], controllers: tuple[Workload, ...], is_wanted: bool
) -> tuple[str, ...]:
    """That there is one pod less until its replacement is ready, why, and what would help."""
    owner = controllers[0] if controllers else None
    chosen = selecting(subject, services)
    if owner is None or not is_wanted:
        return ("capacity dips by one",) if chosen else ()
    why = not_isolated(subject, services, owner) or f"{owner} wants no pods"
    offer = ""
    if controllers[-1].kind == "Deployment" and chosen and owner.replicas:
        name = f"deploy/{controllers[-1].name}"
        offer = "; " + " and ".join(f"`tidegate prepare {name} --service {one.name}`" for one in chosen) + " mends that"
    return (f"capacity dips by one: {why}{offer}",)


def _consequences(planned: LabelCut, controllers: tuple[Workload, ...], is_replaced: bool) -> tuple[str, ...]:
    if is_replaced:
        return (f"{controllers[0]} makes the replacement first: capacity does not dip",) if controllers else ()
    if controllers and controllers[0].kind == "StatefulSet":
        return (f"{controllers[0]} makes the next one of its name once this one is gone",)
    if planned.releases and controllers:
        return (f"{controllers[0]} lets go of the pod and makes a replacement at once",)
    return (f"{controllers[0]} replaces it when it is deleted",) if controllers else ("nothing makes a replacement",)
