"""What is asked for: which workload, to what template, by which strategy. The wire form of a ``Release``'s spec.

``decode_spec`` reads JSON and says of everything that is wrong where it stands (``$.spec.canary.steps[1].weight``):
the same words from the command line, from the operator's conditions and from the tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

StrategyName = Literal["rolling", "bluegreen", "canary", "rainbow"]
STRATEGIES: tuple[StrategyName, ...] = ("rolling", "bluegreen", "canary", "rainbow")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
_LABEL = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
NAME_LENGTH_MAX = 253
WORKLOAD_LENGTH_MAX = 63
"""The workload's name is the value of a label on whatever a release makes."""
STEPS_MAX, ANALYSES_MAX = 100, 20
"""Of one release. A CustomResourceDefinition's rules are priced by the longest list that they may meet."""


class Invalid(ValueError):
    """``problems``: each says where and what, one line each."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class _Shape(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename="camel"):
    """All of a spec: unknown fields are errors, defaults are not written."""


class Rolling(_Shape, frozen=True):
    """In place, on the Deployment itself; old pods end through their gates."""


class Analysis(_Shape, frozen=True):
    """One question whose answer lets a release go on.

    ``kind``: ``prometheus`` (``query`` at ``url``, ``success`` compares its value: ``>= 0.99``), ``http`` (``url``
    answers 2xx), ``command`` (exit 0; command line only). Asked every ``interval_seconds``, ``count`` times for each
    step; more than ``failure_limit`` failures abort. What cannot be asked is neither success nor failure: the release
    waits.
    """

    name: str
    kind: Literal["prometheus", "http", "command"]
    url: str = ""
    query: str = ""
    success: str = ""
    command: tuple[str, ...] = ()
    interval_seconds: float = 10.0
    count: int = 3
    failure_limit: int = 0
    timeout_seconds: float = 5.0


When = Literal["before", "after"]


class FlipAnalysis(Analysis, frozen=True, kw_only=True):
    """One that is asked ``count`` times ``before`` new traffic goes to the new revision, or ``after``: a failure before
    leaves it where it is, a failure after takes it back."""

    when: When


class BlueGreen(_Shape, frozen=True):
    """``service`` flips. ``preview`` is a Service for the new revision before that ("" makes none for users).

    ``promote``: ``auto`` once the new revision is ready, or ``manual`` when somebody says so. ``keep_seconds``: how
    long the old revision stays warm after the flip; None until ``release retire``.

    ``by``: a label of the user's own whose value differs between the templates (``version``), and by which ``service``
    is to select; "" for ``tidegate.dev/revision``. ``name`` is the new revision's Deployment ("" for WORKLOAD-rN).
    ``together``: both serve from when the new one is ready until the flip; else only the old one does until then.
    """

    service: str = ""
    preview: str = ""
    promote: Literal["auto", "manual"] = "auto"
    keep_seconds: float | None = None
    by: str = ""
    name: str = ""
    together: bool = False
    analysis: tuple[FlipAnalysis, ...] = ()


class CanaryStep(_Shape, frozen=True):
    """``weight``: percent of new connections for the new revision. ``pause_seconds``: how long to stay; None stays
    until ``release promote``. ``header``: only requests with it ("name=value"), where the router can."""

    weight: int
    pause_seconds: float | None = 0.0
    header: str = ""


class Canary(_Shape, frozen=True):
    """``router``: ``replicas`` (the ratio of pods behind ``service``), ``httproute`` or ``traefik`` (weights of the
    object ``route``)."""

    service: str = ""
    steps: tuple[CanaryStep, ...] = ()
    router: Literal["replicas", "httproute", "traefik"] = "replicas"
    route: str = ""
    analysis: tuple[Analysis, ...] = ()


class Rainbow(_Shape, frozen=True):
    """A Deployment per release. ``cap``: live revisions at most, the new one included; ``idle_seconds``: how long a pod
    has to be without work before it may go; ``retire_seconds``: how long an empty revision is kept at zero (it may be
    revived); ``activity``: how to ask a revision for its work (model.activity), "" for its open connections;
    ``analysis``: what has to hold before new traffic goes to it, and after, before the one before begins to leave."""

    service: str = ""
    cap: int = 3
    idle_seconds: float = 5.0
    retire_seconds: float = 60.0
    activity: str = ""
    analysis: tuple[FlipAnalysis, ...] = ()


class Spec(_Shape, frozen=True):
    """A release of Deployment ``workload``.

    To what: ``template`` (a whole PodTemplateSpec), or its template of now with ``images`` ({container: image}), or
    with ``restart`` (any text: another text is another revision). ``paused`` stops before the next step; ``promoted``
    counts the pauses that somebody has let pass; ``wish`` ``abort`` goes back to the revision before, ``rollback_to``
    to one by name; ``retire`` ends revisions that are kept.

    ``ungated``: what becomes of pods without a gate: ``drain`` them by label first, or ``proceed`` and let them end
    unverified, as without Tidegate. ``on_unverified``: a drain that ends unverified ``halt``s the release, or not.
    ``progress_seconds``: how long a new pod may take to be ready.
    """

    workload: str
    strategy: StrategyName = "rolling"
    images: dict[str, str] = {}
    template: dict[str, Any] | None = None
    restart: str = ""
    rolling: Rolling = Rolling()
    bluegreen: BlueGreen = BlueGreen()
    canary: Canary = Canary()
    rainbow: Rainbow = Rainbow()
    paused: bool = False
    promoted: int = 0
    wish: Literal["", "abort"] = ""
    rollback_to: str = ""
    retire: tuple[str, ...] = ()
    ungated: Literal["drain", "proceed"] = "drain"
    on_unverified: Literal["halt", "proceed"] = "halt"
    progress_seconds: float = 600.0

    @property
    def service(self) -> str:
        """Of the strategy; "" where it needs none."""
        match self.strategy:
            case "bluegreen":
                return self.bluegreen.service
            case "canary":
                return self.canary.service
            case "rainbow":
                return self.rainbow.service
            case _:
                return ""


def decode_spec(obj: Any) -> Spec:
    """A spec from decoded JSON. Raises ``Invalid``."""
    try:
        spec = msgspec.convert(obj, Spec)
    except msgspec.ValidationError as error:
        raise Invalid((_placed(str(error)),)) from error
    problems = tuple(_problems(spec))
    if problems:
        raise Invalid(problems)
    return spec


def encode_spec(spec: Spec) -> dict[str, Any]:
    """As JSON."""
    found: dict[str, Any] = msgspec.to_builtins(spec)
    return found


def _placed(text: str) -> str:
    """``Expected `int`, got `str` - at `$.canary.steps[0].weight``` -> ``$.spec.canary.steps[0].weight: expected
    ...``."""
    what, _, where = text.partition(" - at `$")
    place = f"$.spec{where.rstrip('`')}" if where else "$.spec"
    return f"{place}: {what[0].lower()}{what[1:]}"


def _problems(spec: Spec) -> Iterator[str]:
    if not _NAME.fullmatch(spec.workload) or len(spec.workload) > NAME_LENGTH_MAX:
        yield f"$.spec.workload: {spec.workload!r} is not the name of a Deployment"
    if WORKLOAD_LENGTH_MAX < len(spec.workload) <= NAME_LENGTH_MAX:
        yield (
            f"$.spec.workload: {len(spec.workload)} characters are too many, {WORKLOAD_LENGTH_MAX} at most: it is the "
            "value of a label"
        )
    if spec.bluegreen.preview and spec.bluegreen.preview == spec.bluegreen.service:
        yield "$.spec.bluegreen.preview: the Service that flips cannot be its own preview: name another"
    if spec.progress_seconds <= 0:
        yield "$.spec.progressSeconds: must be more than 0"
    if spec.template is not None and spec.images:
        yield "$.spec.images: a whole template and images beside it contradict each other: give one of them"
    if spec.promoted < 0:
        yield "$.spec.promoted: must be 0 or more"
    if spec.strategy == "canary" and not spec.canary.steps:
        yield "$.spec.canary.steps: a canary needs at least one step"
    if spec.strategy == "bluegreen" and not spec.bluegreen.service:
        yield "$.spec.bluegreen.service: blue/green flips a Service: name it"
    if spec.bluegreen.by and not _LABEL.fullmatch(spec.bluegreen.by):
        yield f"$.spec.bluegreen.by: {spec.bluegreen.by!r} is not the name of a label"
    if spec.bluegreen.name and not _NAME.fullmatch(spec.bluegreen.name):
        yield f"$.spec.bluegreen.name: {spec.bluegreen.name!r} is not the name of a Deployment"
    # A section that is not used is held to its rules all the same: the schema of the object cannot but do so.
    yield from _canary(spec.canary)
    yield from _analyses("bluegreen", spec.bluegreen.analysis)
    yield from _analyses("rainbow", spec.rainbow.analysis)
    if spec.rainbow.analysis and not spec.rainbow.service:
        yield "$.spec.rainbow.service: its analyses are of new traffic, which goes by a Service: name it"
    if not 2 <= spec.rainbow.cap <= 20:
        yield "$.spec.rainbow.cap: must be 2 to 20: the revision that serves and the one that comes"
    yield from _seconds(spec)


def _seconds(spec: Spec) -> Iterator[str]:
    counted = {
        "bluegreen.keepSeconds": spec.bluegreen.keep_seconds,
        "rainbow.idleSeconds": spec.rainbow.idle_seconds,
        "rainbow.retireSeconds": spec.rainbow.retire_seconds,
    }
    for where, seconds in counted.items():
        if seconds is not None and seconds < 0:
            yield f"$.spec.{where}: must be 0 or more"


def _canary(canary: Canary) -> Iterator[str]:
    if len(canary.steps) > STEPS_MAX:
        yield f"$.spec.canary.steps: {len(canary.steps)} are too many, {STEPS_MAX} at most"
    before = 0
    for number, step in enumerate(canary.steps):
        where = f"$.spec.canary.steps[{number}]"
        if not 0 <= step.weight <= 100:
            yield f"{where}.weight: {step.weight} is no percentage, it must be 0 to 100"
        elif step.weight < before:
            yield f"{where}.weight: {step.weight} is less than the {before} before it: weights only grow"
        before = max(before, step.weight)
        if step.header and canary.router != "httproute":
            yield f"{where}.header: only an HTTPRoute can look at headers: it takes router httproute"
        if step.pause_seconds is not None and step.pause_seconds < 0:
            yield f"{where}.pauseSeconds: must be 0 or more"
    if canary.router != "replicas" and not canary.route:
        yield f"$.spec.canary.route: router {canary.router} needs the name of the object that it weighs"
    yield from _analyses("canary", canary.analysis)


def _analyses(section: str, analyses: Sequence[Analysis]) -> Iterator[str]:
    if len(analyses) > ANALYSES_MAX:
        yield f"$.spec.{section}.analysis: {len(analyses)} are too many, {ANALYSES_MAX} at most"
    known: set[str] = set()
    for number, one in enumerate(analyses):
        where = f"$.spec.{section}.analysis[{number}]"
        if one.name in known:
            yield f"{where}.name: another one is called {one.name!r} too, and their answers could not be told apart"
        known.add(one.name)
        if one.kind == "prometheus" and not (one.url and one.query and one.success):
            yield f"{where}: prometheus needs url, query and success (such as '>= 0.99')"
        if one.kind == "http" and not one.url:
            yield f"{where}.url: http needs a URL"
        if one.kind == "command" and not one.command:
            yield f"{where}.command: command needs one"
        if one.count < 1:
            yield f"{where}.count: must be 1 or more"
        if one.failure_limit < 0:
            yield f"{where}.failureLimit: must be 0 or more"
        if one.interval_seconds <= 0:
            yield f"{where}.intervalSeconds: must be more than 0"
        if one.timeout_seconds <= 0:
            yield f"{where}.timeoutSeconds: must be more than 0"
