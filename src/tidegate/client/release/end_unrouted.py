"""The end of a revision whose pods have no gate and that nobody sends to any more: as they are, without twins.

A gate would wait until every observer has let go of a pod and nothing is in flight at it. Both are asked here instead,
anew and in that order, just before the Deployment is scaled to zero, and written on each pod as a gate would. What this
cannot tell (no agents, another Service that lists a pod, another protocol than TCP, sockets that cannot be read) is
left to the drain by label, which asks for more and takes a twin for each pod.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

from tidegate import vtime
from tidegate.client.drain import drain_pod
from tidegate.client.options import VerbOptions
from tidegate.client.release import asking
from tidegate.client.release.activity import READ_SECONDS, Work
from tidegate.client.release.family import look
from tidegate.client.release.ground import Failed, Ground
from tidegate.client.release.look import Sight
from tidegate.client.release.rainbow_acts import end
from tidegate.kube.errors import ApiError
from tidegate.model.names import DrainResult, Ending
from tidegate.model.pod import Pod
from tidegate.observers.proxied import is_installed
from tidegate.release.endings import is_fine
from tidegate.release.plan import Step
from tidegate.release.record import Asked
from tidegate.release.scene import Question

LOOKS = 5
"""At the sockets, ``READ_SECONDS`` apart, before it is told who keeps them; whoever asked for it tries again."""
ASK_SECONDS = 60.0


async def end_unrouted(ground: Ground, sight: Sight, step: Step) -> None:
    """The revision (``step.subject``) to zero; ``pods`` are those without a gate. Raises ``Failed`` with who has work
    still, or routes to one; nothing has changed then."""
    sight = await _anew(ground, sight)
    pods = _of(sight, step)
    if not pods:
        return
    if await _is_beyond(ground, sight, pods) or await _unknown(ground, sight, pods):
        await by_label(ground, sight, [one.name for one in pods], step.reason)
        return
    said = await _unrouted(ground, sight, step.subject, pods)
    for _ in range(2):  # who had been on the way when the last one let go has arrived by the second look
        await asyncio.sleep(READ_SECONDS)
        counts = await Work(ground.client).connections(sight, pods)
        _check(pods, counts)
    sight = await _anew(ground, sight)
    known = {one.uid for one in pods}
    late = [one.name for one in _bare(sight, step.subject) if one.uid not in known]
    if late:
        raise Failed(f"pod/{late[0]} came meanwhile, and was not asked about")
    pods = [one for one in _of(sight, step) if one.uid in known]
    if _elsewhere(sight, pods):
        raise Failed(f"{_elsewhere(sight, pods)} meanwhile")
    why = f"routed nowhere and idle, as revision {step.subject} of {sight.entry.spec.workload} is retired"
    if said.verdict == "yes":
        result = DrainResult(Ending.VERIFIED, why)
    else:
        result = DrainResult(Ending.ASSUMED, f"{why}; not all could be asked: {', '.join(said.assumed[:3])}")
    await end(ground, sight, step, [(one, result) for one in pods])


async def by_label(ground: Ground, sight: Sight, names: Iterable[str], reason: str) -> None:
    """One pod after the other, each replaced first. Raises ``Failed`` at the first that is not verified."""
    for name in names:
        options = VerbOptions(
            timeout_seconds=ground.drain_seconds,
            identity=ground.identity,
            ledger=ground.ledger,
            seed=ground.seed,
            reason=reason,
        )
        try:
            result = await drain_pod(ground.client, sight.entry.namespace, name, options)
        except ApiError as error:
            if not error.is_not_found:
                raise
            continue
        if not is_fine(result.result.value):
            raise Failed(f"pod/{name} was not drained: {result}")


async def _anew(ground: Ground, sight: Sight) -> Sight:
    """By the API itself: what a cache holds may be from before the last write."""
    found = await look(ground.client, sight.entry, vtime.now().timestamp(), {})
    found.scene = replace(found.scene, status=sight.scene.status)
    return found


def _of(sight: Sight, step: Step) -> list[Pod]:
    names = set(step.pods)
    return [one for one in _bare(sight, step.subject) if one.name in names]


def _bare(sight: Sight, revision: str) -> list[Pod]:
    edition = sight.scene.edition(revision)
    names = {one.name for one in edition.ungated} if edition is not None else set()
    return [one for one in sight.pods_of.get(revision, []) if one.name in names]


def _elsewhere(sight: Sight, pods: Iterable[Pod]) -> str:
    """Which Service has one of them, "" for none."""
    for one in pods:
        for name, seen in sorted(sight.listed.items()):
            if seen & {one.uid, *one.ips}:
                return f"svc/{name} has pod/{one.name}"
    return ""


async def _is_beyond(ground: Ground, sight: Sight, pods: list[Pod]) -> bool:
    """Whether it is not for sockets and one Service's observers to tell that nobody needs them."""
    ports = ((sight.services.get(sight.scene.spec.service) or {}).get("spec") or {}).get("ports") or ()
    if not ports or any(one.get("protocol", "TCP") != "TCP" for one in ports) or _elsewhere(sight, pods):
        return True
    return not await is_installed(ground.client)


async def _unknown(ground: Ground, sight: Sight, pods: list[Pod]) -> bool:
    """Whether sockets cannot be read, of one of them at least. Raises ``Failed`` where one has work, for long."""
    counts: dict[str, int | None] = {}
    for number in range(LOOKS):
        counts = await Work(ground.client).connections(sight, pods)
        if all(counts[one.uid] == 0 for one in pods):
            return False
        if number < LOOKS - 1:
            await asyncio.sleep(READ_SECONDS)
    if any(counts[one.uid] for one in pods):
        _check(pods, counts)
    return True


def _check(pods: Iterable[Pod], counts: dict[str, int | None]) -> None:
    """Raises ``Failed`` with the first that is not known to be idle."""
    for one in pods:
        count = counts[one.uid]
        if count:
            raise Failed(f"pod/{one.name} has {count} connection{'s' * (count != 1)} still")
        if count is None:
            raise Failed(f"what pod/{one.name} does is not known: its node does not tell")


async def _unrouted(ground: Ground, sight: Sight, revision: str, pods: list[Pod]) -> Asked:
    """What all observers say now; what they said after the flip may be long ago. Raises ``Failed``."""
    scene = sight.scene
    question = Question("unrouted", revision, scene.spec.service, scene.status.round)
    subject = asking.subject_of(sight.entry.namespace, question, pods)
    last: list[Asked] = []
    try:
        async with asyncio.timeout(ASK_SECONDS):
            said = await asking.answer(ground.client, subject, f"end-{ground.identity.holder}", last.append)
    except TimeoutError:
        said = last[-1] if last else Asked("no")
    if not said.is_settled:  # also where it is refused: by a coordinator of an older version
        names = ", ".join(said.stragglers[:3]) or "nobody has answered"
        raise Failed(f"{revision} is not known to be unrouted any more: {names}")
    return said
