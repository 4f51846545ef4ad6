"""The public API of releases: plan one, begin it, ask it for something, carry it to its next rest, list them.

Without CustomResourceDefinitions the caller's process is the engine; where another process (an operator, another
command line) is at work on a release, the same calls follow it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import msgspec

from tidegate import vtime
from tidegate.client.options import Identity
from tidegate.client.release import registering
from tidegate.client.release.book import AskableBook, Book, ConfigMapBook, Entry
from tidegate.client.release.endings import Endings
from tidegate.client.release.family import look
from tidegate.client.release.ground import Ground, is_stale
from tidegate.client.release.look import Sight
from tidegate.client.release.run import Engine, HeldByOther, Turn, Working
from tidegate.engine.ledger import Ledger
from tidegate.kube.api import DEPLOYMENTS, PODS, SERVICES, JsonObject, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, KubeError
from tidegate.kube.reflector import Reflector
from tidegate.model.names import MANAGED_BY, TIDEGATE
from tidegate.release.plan import Decision, counted
from tidegate.release.record import Phase, Status
from tidegate.release.scene import REVISION_LABEL, Scene
from tidegate.release.spec import Invalid, Spec
from tidegate.release.strategies import STRATEGIES, decide
from tidegate.vtime import Nursery

if TYPE_CHECKING:
    from tidegate.release.foresee import Foreseen

Verb = Literal["promote", "pause", "resume", "abort", "rollback", "retire"]
FOLLOW_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class ReleaseOptions:
    """What a caller may choose about a release beside its spec. ``drain_seconds``: for each pod drained by label."""

    identity: Identity = field(default_factory=Identity)
    ledger: Ledger | None = None
    timeout_seconds: float = float("inf")
    drain_seconds: float = 300.0
    seed: int | None = None
    patience_seconds: float = 0.0
    """How long to leave it to another engine (an operator that leads) to begin, before this process is the engine."""


@dataclass(frozen=True, slots=True)
class ReleasePlan:
    """What would come of it. ``refusals``: why it cannot be begun, each with the way out; then nothing is changed."""

    namespace: str
    spec: Spec
    sight: Sight | None
    foreseen: Foreseen | None
    refusals: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class About:
    """Which workload."""

    namespace: str
    workload: str

    def __str__(self) -> str:
        return f"deploy/{self.workload} in namespace {self.namespace}"


class NoRelease(KubeError):
    """There is none of that workload."""


def none_of(about: About) -> NoRelease:
    return NoRelease(f"there is no release of {about}: see `tidegate release list`")


async def plan_release(
    client: KubeClient, book: Book, namespace: str, spec: Spec, is_operated: bool = False
) -> ReleasePlan:
    """Look, and tell the strategy forward. ``is_operated``: an operator will carry it, by its own rights. Changes
    nothing. Raises ``KubeError``."""
    from tidegate.client.release.permitted import lacking
    from tidegate.release.foresee import foresee

    try:
        entry = await book.read()
    except (Invalid, ValueError) as error:
        return ReleasePlan(namespace, spec, None, None, (f"what is written of it cannot be read: {error}",))
    status = entry.status if entry is not None else Status()
    generation = entry.generation + 1 if entry is not None else 1
    asked = Entry(namespace, spec.workload, spec, status, generation, entry.version if entry else "")
    sight = await look(client, asked, vtime.now().timestamp(), {})
    refusals = list(_refusals(spec, sight, entry))
    refusals += await lacking(client, namespace, spec, not isinstance(book, ConfigMapBook), is_operated)
    if refusals:
        return ReleasePlan(namespace, spec, sight, None, tuple(refusals))
    seen = foresee(sight.scene)
    if seen.phase == Phase.HALTED.value and not any(one.step for one in seen.moments):
        return ReleasePlan(namespace, spec, sight, seen, (seen.reason,))
    services = [spec.service] if spec.service else _selecting(sight.services.values(), sight.deployment or {}, "")
    found = [*_notes(sight), *await registering.notes(client, sight, services)]
    return ReleasePlan(namespace, spec, sight, seen, (), tuple(found))


async def services_of(client: KubeClient, about: About, by: str = REVISION_LABEL) -> list[str]:
    """The Services that select the pods of a Deployment. Raises ``KubeError`` (404 for no such Deployment)."""
    deployment = await client.get(DEPLOYMENTS, about.workload, about.namespace)
    return _selecting((await client.list(SERVICES, Selection(about.namespace))).items, deployment, by)


def _selecting(services: Iterable[JsonObject], deployment: JsonObject, by: str) -> list[str]:
    """Of the people's own, those that select its pods or those of its revisions, which ``by`` tells apart."""
    from tidegate.client.prepare.scene import template_labels

    labels, found = template_labels(deployment), []
    for one in services:
        selector = dict((one.get("spec") or {}).get("selector") or {})
        selector.pop(by, None)
        is_ours = (one["metadata"].get("labels") or {}).get(MANAGED_BY) == TIDEGATE
        if selector and not is_ours and selector.items() <= labels.items():
            found.append(one["metadata"]["name"])
    return sorted(found)


def _refusals(spec: Spec, sight: Sight, entry: Entry | None) -> list[str]:
    scene = sight.scene
    found = list(scene.problems)
    if spec.strategy not in STRATEGIES:
        found.append(f"$.spec.strategy: {spec.strategy} is not known here")
    elif spec.strategy == "rainbow" and not spec.service and sight.deployment is not None:
        # Without one it moves no traffic: right where work comes by other ways, and by mistake otherwise.
        names = _selecting(sight.services.values(), sight.deployment, REVISION_LABEL)
        if names:
            found.append(f"rainbow moves a Service, and of its pods' {', '.join(names)} none is named: --service does")
    elif not found and _is_idle(scene, entry):
        found.append("nothing to release: the template that is asked for is the one that runs; --restart makes another")
    if entry is not None and entry.status.phase and not entry.status.is_final and entry.spec.strategy != spec.strategy:
        found.append(
            f"a {entry.spec.strategy} release of it is {entry.status.phase}: let it end, or "
            f"`tidegate release abort deploy/{spec.workload}`, before another strategy begins"
        )
    return found


def _is_idle(scene: Scene, entry: Entry | None) -> bool:
    """Whether what is asked for is what runs already, and nothing is under way."""
    decision = decide(scene)
    is_over = scene.status.is_final if entry is not None else decision.is_final
    return is_over and not decision.steps and scene.template == scene.target


_UNGATED = {
    "rolling": "a pod's hooks cannot be changed, so each is first replaced by a gated twin and drained by label; "
    "--ungated proceed spares that, and they end unverified",
    "rainbow": "before one ends, its routes and connections are looked at from outside",
    **dict.fromkeys(
        ("bluegreen", "canary"),
        "when they are to go, each is first replaced by a gated twin and drained by label; --ungated proceed spares "
        "that, and they end unverified",
    ),
}


def _notes(sight: Sight) -> list[str]:
    scene, found = sight.scene, []
    ungated = [one.name for edition in scene.editions for one in edition.ungated]
    if ungated and scene.spec.ungated == "drain":
        found.append(f"{counted(len(ungated))} without a gate: {_UNGATED[scene.spec.strategy]}")
    elif ungated:
        found.append(f"{counted(len(ungated))} without a gate: unverified at the end, as --ungated proceed says")
    if scene.spec.strategy != "rolling":
        found += _sharing(sight)
        found += _kept_elsewhere(sight)
    return found


def _sharing(sight: Sight) -> Iterator[str]:
    """Services that go on selecting every revision."""
    spec, deployment = sight.entry.spec, sight.deployment or {}
    by = (spec.bluegreen.by if spec.strategy == "bluegreen" else "") or REVISION_LABEL
    for name in _selecting(sight.services.values(), deployment, by):
        if name != spec.service and by not in sight.services[name]["spec"]["selector"]:
            yield f"svc/{name} selects pods of every revision: the new ones serve there as soon as they are ready"


_KEEPERS = {
    "argocd.argoproj.io/tracking-id": "Argo CD",
    "argocd.argoproj.io/instance": "Argo CD",
    "kustomize.toolkit.fluxcd.io/name": "Flux",
    "helm.toolkit.fluxcd.io/name": "Flux",
}


def _kept_elsewhere(sight: Sight) -> Iterator[str]:
    """Who would write back what a release changes."""
    service = sight.entry.spec.service
    whole = {"spec.replicas": (f"deployment/{sight.entry.spec.workload}", sight.deployment)}
    whole["spec.selector"] = (f"svc/{service}", sight.services.get(service))
    for place, (name, obj) in whole.items():
        metadata = (obj or {}).get("metadata") or {}
        marks = {**(metadata.get("labels") or {}), **(metadata.get("annotations") or {})}
        keeper = next((_KEEPERS[key] for key in sorted(marks) if key in _KEEPERS), "")
        if keeper:
            yield f"{name} is kept by {keeper}: it has to leave {place} to the release, or it undoes it"


async def begin_release(book: AskableBook, plan: ReleasePlan) -> Entry:
    """Write it down. Of an earlier release of the workload it takes the place; what that left goes on as its past.

    Raises ``ApiError`` (a conflict: somebody else asked meanwhile).
    """
    found = await book.read()
    generation = found.generation if found is not None else 0
    for pause in (*_ASK_AGAIN_SECONDS, None):
        try:
            return await book.ask(found, plan.spec) if found is not None else await book.begin(plan.spec)
        except ApiError as error:
            if pause is None or not _is_open(error):
                raise
            await asyncio.sleep(pause)
            found = await book.read()
            if found is None or found.generation == generation:
                continue  # it was the engine that wrote, of what was asked for before
            if found.spec == plan.spec:
                return found
            raise
    raise AssertionError


async def ask_release(book: AskableBook, about: About, change: Callable[[Entry], Spec]) -> Entry:
    """Ask for something else of the release there is. Raises ``NoRelease``, ``ApiError``, ``ValueError`` of
    ``change``."""
    wanted: Spec | None = None
    for pause in (*_ASK_AGAIN_SECONDS, None):
        found = await book.read()
        if found is None:
            raise none_of(about)
        if wanted is not None and found.spec == wanted:
            return found  # asked once is asked: a promotion that stands must not be counted from anew
        wanted = change(found)
        try:
            return await book.ask(found, wanted)
        except ApiError as error:
            if not _is_open(error) or (pause is None and not is_stale(error)):
                raise
            wanted = None if is_stale(error) else wanted
        await asyncio.sleep(pause or 0.0)
    raise KubeError(f"the release of deploy/{about.workload} changes too often to be asked: try again")


_ASK_AGAIN_SECONDS = (0.0, 0.0, 0.1, 0.2, 0.5, 1.0, 1.0, 2.0, 2.0)


def _is_open(error: ApiError) -> bool:
    """Whether a second look tells what became of a write: somebody else was first, or a server in trouble may have
    carried it out all the same (etcd's time-outs)."""
    return (is_stale(error) and not error.is_not_found) or error.code in (500, 502, 503, 504)


def before(status: Status) -> str:
    """The revision that was released before the one of now, "" where none is known; none that was given up."""
    found = [one for one in status.history if one.outcome != Phase.ABORTED.value]
    past = [one.revision for one in found if one.revision != status.revision]
    return past[-1] if past else status.stable


def changed(entry: Entry, verb: Verb, subject: str = "", is_full: bool = False) -> Spec:
    """The spec as ``verb`` wants it. Raises ``ValueError``, which says what to do instead."""
    spec, status = entry.spec, entry.status
    again = msgspec.structs.replace
    match verb:
        case "promote":
            from tidegate.release.proving import FULL

            # Counted from what is used up, so that asking twice at the same pause is asking once.
            promoted = status.promoted + (FULL if is_full else 1)
            return again(spec, promoted=max(spec.promoted, promoted), paused=False)
        case "pause":
            return again(spec, paused=True)
        case "resume":
            return again(spec, paused=False)
        case "abort":
            is_over = spec.strategy == "rainbow" and status.stable == status.revision  # the others only drain
            if status.phase == Phase.DONE.value or is_over:
                raise ValueError(
                    f"the release of deploy/{spec.workload} is done: "
                    f"`tidegate release rollback deploy/{spec.workload}` goes back"
                )
            return again(spec, wish="abort", paused=False)
        case "rollback":
            to = subject or before(status)
            if not to or to == status.revision:
                raise ValueError(
                    "no revision before this one is known: name one of `tidegate release history` with --to"
                )
            return again(spec, wish="", paused=False, rollback_to=to)
        case "retire":
            to = subject or before(status)
            if to in ("", status.revision):
                raise ValueError(f"{to} is the revision that serves: only one before it can be retired")
            return again(spec, retire=tuple(sorted({*spec.retire, to})))


def unknown(sight: Sight, verb: Verb, subject: str) -> str:
    """Why the revision that a verb names cannot be meant, "" where it can."""
    past = [one.revision for one in sight.entry.status.history]
    found = list(dict.fromkeys([*past, *(one.revision for one in sight.scene.editions)]))
    if verb not in ("rollback", "retire") or not subject or subject in found:
        return ""
    return f"there is no revision {subject} of deploy/{sight.entry.spec.workload}: name one of {', '.join(found)}"


async def no_way_back(client: KubeClient, book: Book, about: About, subject: str = "") -> str:
    """Why `rollback` cannot be asked for: a revision that is known by name alone. "" where it can.

    Raises ``NoRelease``, ``KubeError``, and ``ValueError`` of ``changed``."""
    entry = await book.read()
    if entry is None:
        raise none_of(about)
    sight = await seen(client, replace(entry, spec=changed(entry, "rollback", subject)))
    found = [one for one in sight.scene.problems if one.startswith("$.spec.rollbackTo")]
    return f"{found[0]}: name one of `tidegate release history` with --to" if found else ""


async def carry_on(
    client: KubeClient,
    book: Book,
    about: About,
    options: ReleaseOptions,
    heard: Callable[[Turn], None] = lambda turn: None,
) -> Entry:
    """Carry a release to its next rest (done, aborted, paused, halted), or follow whoever does.

    Raises ``KubeError``."""
    loop = asyncio.get_running_loop()
    until = loop.time() + options.timeout_seconds
    endings = Endings()
    watch = Reflector(client, PODS, Selection(about.namespace))
    watch.subscribe(endings.saw)
    awake: list[Engine] = []
    watch.subscribe(lambda old, new: awake[-1].wake() if awake else None)
    ground = Ground(client, options.identity, options.ledger, options.seed, options.drain_seconds)
    async with Nursery() as nursery:
        nursery.start(watch.run(), name=f"watch pods of {about.namespace}")
        await watch.synced()
        await _left_to_others(book, min(until, loop.time() + options.patience_seconds))
        while loop.time() < until:
            engine = Engine(book, ground, endings=endings)
            engine.heard = heard
            awake.append(engine)
            try:
                await engine.run(until - loop.time())
                break
            except HeldByOther:
                entry = await _followed(client, book, heard, until)
                if entry is not None:
                    nursery.cancel()
                    return entry
        nursery.cancel()
    entry = await book.read()
    if entry is None:
        raise NoRelease(f"the release of {about} was deleted meanwhile")
    return entry


async def _left_to_others(book: Book, until: float) -> None:
    """Until another engine has taken up what is asked for, at most ``until`` (the loop's clock)."""
    loop = asyncio.get_running_loop()
    while loop.time() < until:
        entry = await book.read()
        if entry is None or entry.status.holder or entry.status.generation == entry.generation:
            return
        await asyncio.sleep(FOLLOW_SECONDS / 10)


async def _followed(client: KubeClient, book: Book, heard: Callable[[Turn], None], until: float) -> Entry | None:
    """Look on while another is at work, at most ``until`` (the loop's clock); None when nobody is any more."""
    loop = asyncio.get_running_loop()
    working = Working(client)
    while True:
        entry = await book.read()
        if entry is None:
            return None
        sight = await look(client, entry, vtime.now().timestamp(), {})
        sight.scene = await working.seen(sight)
        if entry.status.generation == entry.generation:
            # What the other one decided: it has read connections and analyses that nobody has read here.
            heard(Turn(sight, Decision((), entry.status)))
        is_resting = Phase(entry.status.phase) in (Phase.DONE, Phase.ABORTED, Phase.PAUSED, Phase.HALTED)
        if is_resting and entry.status.generation == entry.generation:
            return entry
        if loop.time() >= until:
            return entry
        if not entry.status.holder:
            return None
        await asyncio.sleep(min(FOLLOW_SECONDS, max(0.0, until - loop.time())))


async def sight_of(client: KubeClient, book: Book, about: About) -> Sight:
    """The release as it stands. Raises ``NoRelease``, ``KubeError``."""
    entry = await book.read()
    if entry is None:
        raise none_of(about)
    return await seen(client, entry)


async def seen(client: KubeClient, entry: Entry) -> Sight:
    """The release that was read just now, as it stands. Raises ``KubeError``."""
    sight = await look(client, entry, vtime.now().timestamp(), {})
    sight.scene = await Working(client).seen(sight)
    return sight
