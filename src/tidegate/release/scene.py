"""What a release looks at: everything as it stands, as plain facts. ``client/release/look.py`` makes it of objects.

A *revision* is one state of the workload's template: a ReplicaSet of the Deployment (rolling), or a Deployment of its
own (the others). An ``Edition`` is a revision as it stands: how many pods it is to have, has, and how they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from tidegate.release.fork import Fork
from tidegate.release.record import Asked, Phase, Status
from tidegate.release.spec import Spec

REVISION_LABEL = "tidegate.dev/revision"
"""On pods, ReplicaSets and Deployments of a revision: ``r2``."""
WORKLOAD_LABEL = "tidegate.dev/workload"
"""On the Deployments of a family: the name of the one it began with."""
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


def key_of(spec: Spec) -> str:
    """The label by which a Service tells the revisions of a family apart."""
    return (spec.strategy == "bluegreen" and spec.bluegreen.by) or REVISION_LABEL


SERVICE_LENGTH_MAX = 63


def service_named(*parts: str) -> str:
    """A Service's name of ``parts``: where they are too long, or have dots, their beginning and a hash of them all
    (a Service's name is one DNS label, a Deployment's may be several)."""
    whole = "-".join(parts)
    if len(whole) <= SERVICE_LENGTH_MAX and "." not in whole:
        return whole
    mark = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{whole.replace('.', '-')[: SERVICE_LENGTH_MAX - len(mark) - 1].rstrip('-')}-{mark}"


@dataclass(frozen=True, slots=True)
class Member:
    """One pod. ``is_available``: ready for minReadySeconds; ``is_listed``: a Service of the release lists it as ready.

    ``connections``: what is in flight at it, None where that is not known (unknown is not idle). ``ending`` is how its
    drain ended, as written on it (``verified``, ``timed-out: node-3``, ...). ``problem``: why its containers do not
    run. ``cost`` is its deletion cost. ``is_probed``: it bears the activity probe of the release, where that has one.
    ``is_let_go``: its owner has let go of it, for a drain by label that has not come to its end; it has no gate.
    ``has_fallen``: it was ready once and is not any more, which one that is only new has not done.
    """

    name: str
    uid: str = ""
    node: str = ""
    is_ready: bool = False
    is_available: bool = False
    is_leaving: bool = False
    is_gated: bool = True
    is_listed: bool = False
    connections: int | None = 0
    ending: str = ""
    problem: str = ""
    cost: int = 0
    is_probed: bool = True
    is_let_go: bool = False
    has_fallen: bool = False


@dataclass(frozen=True, slots=True)
class Edition:
    """One revision. ``desired`` is its replicas as asked for, ``is_observed``: its controller has seen that.

    ``is_base``: the user's own Deployment, never deleted by us. ``is_stalled``: its controller gave up waiting for it
    (ProgressDeadlineExceeded). ``autoscaler`` names the HorizontalPodAutoscaler that owns its replicas, "" without.
    ``retire_at``: since when it stands at zero (seconds since 1970, 0 for it does not).
    """

    revision: str
    deployment: str
    fingerprint: str
    desired: int
    members: tuple[Member, ...] = ()
    is_base: bool = False
    is_observed: bool = True
    is_paused: bool = False
    is_stalled: bool = False
    is_labelled: bool = True
    """Whether all its pods, and those it will make, bear the revision's label."""
    is_gated: bool = True
    """Whether the pods that it will make have a gate."""
    ungatable: str = ""
    """Why they cannot have one, "" where they can."""
    is_half_gated: bool = False
    """Its Deployment is paused while the gate is put into it: whoever did that has not come to its end."""
    is_half_labelled: bool = False
    """So while its label is put on all that it makes."""
    value: str = ""
    """Of the label by which a Service tells it from others; "" where that is its revision."""
    autoscaler: str = ""
    images: Mapping[str, str] = field(default_factory=dict)
    failure: str = ""
    """Why pods of it cannot be made at all, in their controller's words (a quota, a webhook)."""
    work: int | None = None
    """Work by the revision's own word (rainbow's activity), None where unknown or not asked."""

    @property
    def mark(self) -> str:
        """What its pods' label says: of ``tidegate.dev/revision``, or of the user's own (``bluegreen.by``)."""
        return self.value or self.revision

    @property
    def staying(self) -> tuple[Member, ...]:
        return tuple(one for one in self.members if not one.is_leaving)

    @property
    def leaving(self) -> tuple[Member, ...]:
        return tuple(one for one in self.members if one.is_leaving)

    @property
    def ready(self) -> int:
        return sum(one.is_ready for one in self.staying)

    @property
    def available(self) -> int:
        return sum(one.is_available for one in self.staying)

    @property
    def listed(self) -> int:
        return sum(one.is_listed for one in self.staying)

    @property
    def ungated(self) -> tuple[Member, ...]:
        return tuple(one for one in self.staying if not one.is_gated)

    @property
    def problem(self) -> str:
        """Why its pods do not come up: the first pod's own word, or why there is none."""
        return next((f"pod/{one.name}: {one.problem}" for one in self.staying if one.problem), self.failure)


@dataclass(frozen=True, slots=True)
class Way:
    """One Service: what it selects by. ``is_shown``: its slices are as its selector and the pods say.

    ``is_ours``: a release made it. ``round`` is that of the release's last change of its selector, 0 without one.
    """

    name: str
    selector: Mapping[str, str]
    is_shown: bool = True
    is_ours: bool = False
    round: int = 0


@dataclass(frozen=True, slots=True)
class Question:
    """What all observers are asked: is ``revision`` ``routed`` everywhere (its pods are listed, and every data plane
    has seen that), or ``unrouted`` (nobody routes to any of its pods by ``service`` any more)?"""

    kind: str
    revision: str
    service: str
    round: int

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.service}/{self.revision}/{self.round}"

    @property
    def is_about_weights(self) -> bool:
        """Whether the question is one to routers that divide by weight."""
        return self.kind == "restored" or self.kind.startswith("weighed-")


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything as it stands at ``now`` (seconds since 1970).

    ``target`` is the fingerprint of the template that is asked for. ``editions`` are oldest first. ``replicas``: how
    many pods the workload is to have, ``floor`` the fewest that may be available at any moment (desired -
    maxUnavailable), ``surge`` how many more than ``replicas`` may stand beside each other.
    ``weights`` are what the router has (revision -> percent). ``template`` is the fingerprint of the user's own
    Deployment's template now. ``endings``: pod -> how its drain ended, of pods that have gone since the release began.
    ``problems``: what could not be read, each a sentence: it blocks.
    """

    now: float
    spec: Spec
    status: Status
    target: str
    replicas: int
    floor: int
    surge: int
    editions: tuple[Edition, ...]
    ways: tuple[Way, ...] = ()
    weights: Mapping[str, int] = field(default_factory=dict)
    fork: Fork | None = None
    """The router's object, where a canary has one."""
    template: str = ""
    endings: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    generation: int = 0
    """Of the spec: it grows whenever somebody asks for something else."""

    def edition(self, revision: str) -> Edition | None:
        return next((one for one in self.editions if one.revision == revision), None)

    @property
    def incoming(self) -> Edition | None:
        """The revision that is asked for, once it stands."""
        return next((one for one in reversed(self.editions) if one.fingerprint == self.target), None)

    @property
    def goes_back(self) -> bool:
        """Somebody asked to abort, or the release itself saw that it has to."""
        is_aborting = self.status.phase in (Phase.ABORTING.value, Phase.ABORTED.value)
        # A halt on the way back is no change of mind: what was aborted for a cause stays so.
        return self.spec.wish == "abort" or is_aborting or bool(self.status.cause)

    @property
    def stable(self) -> Edition | None:
        """The revision that has, or had, the traffic."""
        return self.edition(self.status.stable)

    def way(self, name: str) -> Way | None:
        return next((one for one in self.ways if one.name == name), None)

    def asked(self, question: Question) -> Asked | None:
        """What was answered to ``question``, None before."""
        return self.status.asked.get(question.key)
