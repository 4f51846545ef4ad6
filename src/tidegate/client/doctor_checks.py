"""What doctor looks at, one pure function each: facts in, findings out, each with its level and its next step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from tidegate.client.permissions import Deed
from tidegate.client.ungated import is_wanted
from tidegate.dataplane.facts import Facts
from tidegate.dataplane.labkernel import FORMAT as LAB_FORMAT
from tidegate.engine.act import reservations
from tidegate.kube.api import JsonObject
from tidegate.model.decode import Malformed
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch, earliest_by_install
from tidegate.model.names import GATE, GATE_ON, LATEST_EPOCH, UNGATED, WEBHOOK_SERVICE, decode_drain, fence_install
from tidegate.model.pod import Pod
from tidegate.traffic import Census, all_held, hold_warnings
from tidegate.traffic.held import instant

LEVELS = ("ok", "warn", "unknown", "fail")
"""From the best to the worst."""

MINOR_LEAST = 28
"""KEP-1669 (terminating endpoints when no other is left) is GA since 1.28: traffic.routes decides by it."""
MINOR_TESTED = 36
LAG_SECONDS = 10.0
"""A proxy that has not shown an epoch this long after its write stands still; one syncs within about a second."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One finding. ``check`` is the kind of check and stable; ``subject`` a node, verb, workload, pod or Service."""

    check: str
    level: str
    sentence: str
    next_step: str = ""
    subject: str = ""


def server(version: Mapping[str, object]) -> Checked:
    """Whether the API server is one that we were tested with."""
    text = str(version.get("gitVersion") or "of an unknown version")
    minor = str(version.get("minor") or "").rstrip("+")
    if not minor.isdigit():
        return Checked("server", "unknown", f"the API server is {text}", "nothing can be said about its version")
    if int(minor) < MINOR_LEAST:
        step = f"upgrade to 1.{MINOR_LEAST} or later: before it endpoints that terminate were left without a fallback"
        return Checked("server", "fail", f"the API server is {text}, older than 1.{MINOR_LEAST}", step)
    if int(minor) > MINOR_TESTED:
        step = "look for a newer tidegate, or rehearse first: `tidegate drain --dry-run`"
        return Checked("server", "warn", f"the API server is {text}, newer than the tested 1.{MINOR_TESTED}", step)
    return Checked("server", "ok", f"the API server is {text}")


def permissions(verb: str, answers: Mapping[Deed, bool | None], is_reading: bool) -> Checked:
    """Whether these credentials may do all that ``verb`` asks for. Who only looks lacks nothing by not writing."""
    denied = [str(deed) for deed, is_allowed in answers.items() if is_allowed is False]
    unsaid = [str(deed) for deed, is_allowed in answers.items() if is_allowed is None]
    if denied:
        level = "fail" if is_reading else "warn"
        step = f"ask for a role that may, to use `tidegate {verb}` here (docs/operating.md)"
        return Checked("permissions", level, f"these credentials may not {_some(denied)}", step, verb)
    if unsaid:
        step = "try it: the server refuses what is not allowed before anything is changed"
        return Checked("permissions", "unknown", f"the server does not say who may {_some(unsaid)}", step, verb)
    return Checked("permissions", "ok", "may do all it needs", "", verb)


def agents(nodes: Iterable[str], with_agent: Iterable[str], is_coordinated: bool) -> list[Checked]:
    """Nodes that nobody can ask: each keeps every drain waiting to its deadline."""
    known = set(with_agent)
    missing = [node for node in nodes if node not in known]
    if not missing:
        return [Checked("agents", "ok", "every node has an agent")]
    if not is_coordinated and not known:
        step = "install it (docs/operating.md), or live with results that are assumed"
        return [Checked("agents", "warn", "there is no Tidegate in this cluster: no node can be asked", step)]
    step = "run an agent there, or take the node out of the cluster: its kernel may route to any pod"
    return [
        Checked("agents", "fail", "there is no agent on it: every drain waits for it in vain", step, one)
        for one in missing
    ]


def version(node: str, said: str | None, own: str, problem: str = "") -> Checked:
    """Whether the agent is of our version. ``said`` is None where it could not be asked."""
    if said is None:
        return Checked("version", "unknown", f"its agent does not answer: {problem}", _look_at(node), node)
    if not said:
        return Checked("version", "warn", "its agent is too old to say its version", f"update it to {own}", node)
    if said != own:
        step = f"bring both to one version: this is {own}"
        return Checked("version", "warn", f"its agent is {said}, and this command line {own}", step, node)
    return Checked("version", "ok", f"its agent is {said}, as is this command line", "", node)


def lease(obj: JsonObject | None, now: datetime) -> Checked:
    """Whether somebody coordinates. The renewal is the holder's clock against ours."""
    if obj is None:
        step = "install it (docs/operating.md), or live with results that are assumed"
        return Checked("coordinator", "warn", "there is no coordinator's Lease", step)
    spec = obj.get("spec") or {}
    holder, renewed = str(spec.get("holderIdentity") or ""), instant(str(spec.get("renewTime") or ""))
    if not holder or renewed is None:
        step = "look at the coordinator's pod: `kubectl -n tidegate-system get pods`"
        return Checked("coordinator", "fail", "nobody holds the coordinator's Lease", step)
    age = (now - renewed).total_seconds()
    duration = float(spec.get("leaseDurationSeconds") or 0)
    if age > duration:
        step = f"look at it: `kubectl -n tidegate-system logs {holder}`; a clock that is off looks the same"
        return Checked("coordinator", "fail", f"{holder} has not renewed its Lease for {age:.0f} s", step, holder)
    return Checked("coordinator", "ok", f"{holder} holds the Lease, renewed {max(age, 0):.0f} s ago", "", holder)


def webhook(slices: Iterable[JsonObject]) -> list[Checked]:
    """Whether somebody answers the webhook, where it is installed: its Service has slices then, be it without a pod."""
    own = [one for one in slices if _service_name(one) == WEBHOOK_SERVICE]
    if not own:
        return []
    ready = {
        address
        for one in own
        for endpoint in one.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready", True)
        for address in endpoint.get("addresses") or ()
    }
    if ready:
        return [Checked("webhook", "ok", f"{len(ready)} answer for new pods")]
    step = "look at the operator's pods: `kubectl -n tidegate-system get pods -l app.kubernetes.io/component=operator`"
    return [Checked("webhook", "fail", "nobody answers it: new pods are created without a gate", step)]


def fence(facts: Facts, written: Mapping[str, tuple[Epoch, float | None]]) -> list[Checked]:
    """How far a node is behind the epochs ``written``, by install, each with the seconds since then (None: unknown)."""
    node = facts.source
    if facts.unreadable:
        why = "; ".join(map(str, facts.unreadable))
        return [Checked("fence", "unknown", f"its tables cannot be read: {why}", _look_at(node), node)]
    found = []
    shown = {epoch.install: epoch for epoch in earliest_by_install(facts.fence)}
    for install, (newest, age) in sorted(written.items()):
        epoch = shown.get(install)
        since = "" if age is None else f", written {age:.0f} s ago"
        if epoch is not None and epoch.reaches(newest):
            found.append(Checked("fence", "ok", f"it shows epoch {epoch}, the newest{since}", "", node))
            continue
        level = "warn" if age is not None and age < LAG_SECONDS else "fail"
        has = f"it shows epoch {epoch}" if epoch is not None else "it shows no epoch"
        step = f"look at the proxy of {node}: it has not applied what every other was told"
        found.append(Checked("fence", level, f"{has}, the newest is {newest}{since}", step, node))
    return found


def written_epochs(slices: Iterable[JsonObject], now: datetime) -> dict[str, tuple[Epoch, float | None]]:
    """The newest epoch of each fence's slices, and how long ago it was written by the server's clock."""
    found: dict[str, tuple[Epoch, float | None]] = {}
    for obj in slices:
        meta = obj["metadata"]
        install = fence_install(_service_name(obj))
        if install is None:
            continue
        try:
            epoch = Epoch.parse((meta.get("annotations") or {})[LATEST_EPOCH])
        except (KeyError, ValueError):
            try:
                epoch = Epoch.of_endpoint(install, _shown(obj))
            except (KeyError, IndexError, ValueError):
                continue
        times = [at for one in meta.get("managedFields") or () if (at := instant(str(one.get("time") or "")))]
        age = (now - max(times)).total_seconds() if times else None
        if install not in found or epoch.reaches(found[install][0]):
            found[install] = (epoch, age)
    return found


def proxy(facts: Facts) -> Checked:
    """What routes on a node, as its dump says."""
    if facts.unreadable:
        return Checked("proxy", "unknown", "its proxy mode is not known: the tables cannot be read", "", facts.source)
    mode = proxy_mode(facts.dump)
    if mode == "unknown":
        step = "its routes are not understood: drains wait for it in vain"
        return Checked("proxy", "unknown", f"the dump is of no kind we know: {facts.dump}", step, facts.source)
    return Checked("proxy", "ok", f"proxy mode {mode}", "", facts.source)


def proxy_mode(dump: str) -> str:
    """The kinds of data plane a dump is of, as who took it names them."""
    if dump.startswith("linux "):
        return dump.removeprefix("linux ").partition(", generation ")[0]
    return "labkernel" if dump.startswith(LAB_FORMAT.partition("/")[0]) else "unknown"


def ungated(census: Census) -> list[Checked]:
    """Workloads whose pods are told to stop while traffic still comes, whoever deletes them without us."""
    found = []
    for one in census.workloads:
        if one.owner is not None:
            continue
        pods = [pod for pod in census.owned_by(one) if not pod.is_terminating and not pod.is_finished]
        serving = [pod for pod in pods if census.services_of(pod)]
        bare = [pod for pod in serving if is_wanted(pod)]
        if bare:
            sentence = f"{len(bare)} of {len(serving)} pods that serve have no gate: a rollout ends them unverified"
            told = sorted({pod.annotations[UNGATED] for pod in bare if UNGATED in pod.annotations})
            sentence += f" ({'; '.join(told)})" if told else ""
            step = "add the preStop hook to its template (docs/operating.md)"
            if not told:
                step += f", or label its namespace {GATE}={GATE_ON} where the webhook is installed, and restart it"
            found.append(Checked("gate", "warn", sentence, step, str(one)))
    return found or [Checked("gate", "ok", "every pod that serves is gated")]


def leftovers(census: Census, now: datetime) -> list[Checked]:
    """Records that nobody is at work on: held pods past their time, tombstones, reservations of pods that are gone."""
    found = []
    for one in all_held(census.pods):
        subject = f"pod/{one.pod}"
        if not one.is_orphan(now):
            continue
        if one.is_sealed:
            sentence = "it bears a tombstone and was not deleted: whoever drained it was interrupted"
            found.append(Checked("leftovers", "warn", sentence, _commands(one.next_steps), subject))
        elif one.record is None:
            found.append(Checked("leftovers", "warn", f"held: {one.problem}", _commands(one.next_steps), subject))
        elif not one.record.is_at_rest:
            sentence = (
                f"its {one.verb} was interrupted: the lease of {one.record.holder} ended {one.record.lease_until}"
            )
            found.append(Checked("leftovers", "warn", sentence, _commands(one.next_steps), subject))
        found += [
            Checked("leftovers", "warn", warning.sentence, warning.next_step, subject)
            for warning in hold_warnings(one, now)
        ]
    alive = {pod.uid for pod in census.pods}
    names = {pod.uid: pod.name for pod in census.pods if not _has_record(pod)}
    for service in census.services:
        for uid in sorted(reservations(service).keys() & names.keys()):
            # Killed between its reservation and its cut: the pod serves, and no verb is due on it.
            sentence = f"it counts a drain of pod/{names[uid]} against its floor, and nobody has begun one"
            step = f"if nobody is at work on it: `tidegate cut pod/{names[uid]}`, then `tidegate restore` gives it back"
            found.append(Checked("leftovers", "warn", sentence, step, f"svc/{service}"))
        gone = sorted(uid for uid in reservations(service) if uid not in alive)
        if gone:
            drains = "a drain of a pod" if len(gone) == 1 else f"{len(gone)} drains of pods"
            sentence = f"it counts {drains} that {'is' if len(gone) == 1 else 'are'} gone against its floor"
            step = "nothing to do: the next drain of one of its pods does not count them, and writes them away"
            found.append(Checked("leftovers", "warn", sentence, step, f"svc/{service}"))
    return found or [Checked("leftovers", "ok", "no record is left over")]


def _has_record(one: Pod) -> bool:
    try:
        record = decode_drain(one.annotations)
    except Malformed:
        return True  # said elsewhere
    return record is not None and bool(record.labels)


def worst(found: Iterable[Checked]) -> str:
    """The worst level among ``found``."""
    return max((one.level for one in found), key=LEVELS.index, default="ok")


def _service_name(obj: JsonObject) -> str:
    return str((obj["metadata"].get("labels") or {}).get("kubernetes.io/service-name") or "")


def _shown(obj: JsonObject) -> Endpoint:
    return Endpoint(obj["endpoints"][0]["addresses"][0], obj["ports"][0]["port"])


def _look_at(node: str) -> str:
    return f"look at its agent: `kubectl -n tidegate-system get pods --field-selector spec.nodeName={node}`"


def _commands(steps: Iterable[str]) -> str:
    return " or ".join(f"`{step}`" for step in steps)


def _some(deeds: list[str]) -> str:
    return "; ".join(deeds[:4]) + (f"; and {len(deeds) - 4} more" if len(deeds) > 4 else "")
