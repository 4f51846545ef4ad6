"""The plan of ``prepare``: the moves foreseen, what follows from them, and why it may have to be refused."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from tidegate import vtime
from tidegate.client.guards import Guards, read_guards
from tidegate.client.lease import is_at_work
from tidegate.client.options import Identity
from tidegate.client.permissions import deeds_of, review
from tidegate.client.plan import Refusal
from tidegate.client.prepare.scene import REHEARSAL_PREFIX, About, Sight, look, record_of, template_labels
from tidegate.kube import api as kube
from tidegate.kube.api import DEPLOYMENTS, SERVICES, Api, JsonObject
from tidegate.kube.errors import ApiError
from tidegate.model import pod, service, workload
from tidegate.model.names import TRAFFIC_PREFIX, TRAFFIC_VALUE, PrepareRecord
from tidegate.model.selector import Selector
from tidegate.traffic.outlook import outline
from tidegate.traffic.ownership import Claim, claim_on
from tidegate.traffic.preparation import PREPARED, Act, Move, Wish

_TEMPLATE_FIELD = ("spec", "template", "metadata", "labels")
_SELECTOR_FIELD = ("spec", "selector")
_WRITES = ("patch", "create", "delete")


@dataclass(frozen=True, slots=True)
class PrepareOptions:
    """What a caller may choose about ``prepare``."""

    key: str = ""
    """The label; empty for ``traffic.tidegate.dev/SERVICE``."""
    value: str = TRAFFIC_VALUE
    in_place: bool = False
    """No pod is restarted: the ReplicaSet's template and its pods are labelled while the Deployment is paused."""
    is_abort: bool = False
    """Back to how it was, from wherever it stands."""
    timeout_seconds: float = 600.0
    """For all of it. What was begun then stays, and is continued by another run."""
    settle_seconds: float = 2.0
    """How long to watch the EndpointSlices once the selector asks for the label."""
    identity: Identity = field(default_factory=Identity)
    seed: int | None = None
    """Of the record's token; ``None`` draws one."""


@dataclass(frozen=True, slots=True)
class PreparePlan:
    """``moves`` are foreseen; ``done`` says why there is nothing to do, else "". ``patch`` is YAML to commit instead,
    where somebody else keeps these fields. ``has_begun``: somebody began it, it is continued."""

    about: About
    wish: Wish
    moves: tuple[Move, ...]
    refusals: tuple[Refusal, ...]
    consequences: tuple[str, ...]
    patch: str
    done: str = ""
    has_begun: bool = False

    def document(self) -> dict[str, Any]:
        """The plan as ``--dry-run -o json`` prints it (docs/json.md)."""
        return {
            "verb": "prepare",
            "namespace": self.about.namespace,
            "service": self.about.service,
            "deployments": list(self.about.deployments),
            "label": {"key": self.wish.key, "value": self.wish.value},
            "inPlace": self.wish.in_place,
            "abort": self.wish.is_abort,
            "steps": [{"what": told(move, self.about), "reason": move.reason} for move in self.moves],
            "consequences": list(self.consequences),
            "refusals": [
                {"reason": one.reason, "wayOut": one.way_out, "overridable": one.is_floor} for one in self.refusals
            ],
            "patch": self.patch,
        }


def told(move: Move, about: About) -> str:
    """A move in a line, with the objects it is about."""
    if move.act is Act.WAIT:
        return f"wait {move.reason}"
    if move.act is Act.STUCK:
        return f"stop: {move.reason}"
    where = f"deploy/{move.subject}" if move.subject else f"svc/{about.service}"
    names = f": {', '.join(move.names[:5])}{' ...' if len(move.names) > 5 else ''}" if move.names else ""
    return f"{where}: {move.act.value}{names}"


async def plan_prepare(api: Api, about: About, options: PrepareOptions) -> PreparePlan:
    """Look, and plan; changes nothing. Raises ``KubeError`` (404 for an unknown object) and ``Malformed``."""
    about, record = await _continued(api, about, options)
    key = record.key if record is not None else options.key or default_key(about.service)
    value = record.value if record is not None else options.value
    in_place = record.in_place if record is not None else options.in_place
    wish = Wish(key, value, in_place, options.is_abort)
    sight = await look(api, about, key)
    moves = outline(sight.scene, wish)
    refusals = list(_at_work(about, sight, options))
    if record is not None and options.key and (options.key, options.value) != (key, value):
        refusals.append(
            Refusal(f"svc/{about.service} is prepared with {key}={value}", way_out="`--abort` takes it back first")
        )
    own = "" if record is not None or options.is_abort else _own_label(sight, about)
    if not options.is_abort and not own:
        guards = await read_guards(api, about.namespace)
        refusals += [*_of_service(about, sight, wish), *_of_deployments(about, sight, wish, record)]
        refusals += [*_claimed(about, sight, wish), *await _used(api, about, wish, guards)]
    refusals += _stuck(moves, wish)
    if moves and not own:
        asked = [deed for deed in deeds_of("prepare", about.namespace, is_witnessed=False) if deed.verb in _WRITES]
        answers = await review(api, asked)
        refusals += [Refusal(f"these credentials may not {deed}") for deed, may in answers.items() if may is False]
    is_claimed = any(claim for _, claim in _claims(about, sight))
    done = own or ("" if moves else "it is not prepared" if options.is_abort else "already prepared")
    return PreparePlan(
        about=about,
        wish=wish,
        moves=() if own else moves,
        refusals=tuple(dict.fromkeys(refusals)),
        consequences=() if done else tuple(_consequences(about, sight, wish)),
        patch=patch_of(about, wish) if is_claimed and not own else "",
        done=done,
        has_begun=record is not None and record.phase != PREPARED,
    )


def default_key(name: str) -> str:
    """The label of the Service ``name``. A Service's name has 63 letters at most, and so may a label's have."""
    return f"{TRAFFIC_PREFIX}{name}"


async def _continued(api: Api, about: About, options: PrepareOptions) -> tuple[About, PrepareRecord | None]:
    """What was begun on the Service, or is left on a Deployment of a Service that is gone, and whom it is about."""
    given = [await api.get(DEPLOYMENTS, name, about.namespace) for name in about.deployments]
    left = next((found for obj in given if (found := record_of(obj)) and found.service == about.service), None)
    try:
        record = record_of(await api.get(SERVICES, about.service, about.namespace)) or left
    except ApiError as error:
        if not (error.is_not_found and options.is_abort and left):
            raise
        return about, left
    existing = {obj["metadata"]["name"] for obj in (await api.list(DEPLOYMENTS, kube.Selection(about.namespace))).items}
    known = [name for name in (record.deployments if record is not None else ()) if name in existing]
    return replace(about, deployments=tuple(dict.fromkeys((*about.deployments, *known)))), record


def who(about: About, record: PrepareRecord) -> str:
    """Who prepares the Service, since when, under which token."""
    return (
        f"svc/{about.service} is being prepared by {record.by or 'somebody'} since {record.at or 'a while'} "
        f"(token {record.token})"
    )


def _at_work(about: About, sight: Sight, options: PrepareOptions) -> Iterator[Refusal]:
    record = sight.scene.record
    if record is not None and is_at_work(record, options.identity, vtime.now()):
        yield Refusal(who(about, record), way_out="wait for its end, or for the end of that process")
    for subject in sight.scene.subjects:
        if subject.record is not None and subject.record.service != about.service:
            other = replace(about, service=subject.record.service)
            way_out = f"finish that, or `tidegate prepare deploy/{subject.name} --service {other.service} --abort`"
            yield Refusal(f"deploy/{subject.name} is paused: {who(other, subject.record)}", way_out=way_out)


def _own_label(sight: Sight, about: About) -> str:
    """Why there is nothing to do: the Service selects by a label that no Deployment's selector looks at."""
    selector = sight.scene.selector
    owned: set[str] = set()
    for obj in sight.deployments.values():
        owned |= set((workload.decode(obj).selector or Selector()).keys)
        if not selector.items() <= template_labels(obj).items():
            return ""
    free = sorted(name for name in selector if name not in owned)
    if not free or sight.service is None:
        return ""
    named = ", ".join(f"{name}={selector[name]}" for name in free)
    return f"svc/{about.service} selects by {named} already, which no selector of a Deployment looks at"


def _of_service(about: About, sight: Sight, wish: Wish) -> Iterator[Refusal]:
    found = service.decode(sight.service)
    if found.type == "ExternalName":
        yield Refusal(f"svc/{found.name} is an ExternalName: it selects no pods")
        return
    if found.selector is None:
        way_out = "whoever writes its EndpointSlices decides"
        yield Refusal(f"svc/{found.name} has no selector: it selects no pods", way_out=way_out)
        return
    base = {key: value for key, value in sight.scene.selector.items() if key != wish.key}
    for subject in sight.scene.subjects:
        missing = [f"{key}={value}" for key, value in base.items() if subject.labels.get(key) != value]
        if missing:
            reason = (
                f"svc/{found.name} does not select the pods of deploy/{subject.name}: {', '.join(missing)} is missing"
            )
            yield Refusal(reason, way_out="name the Deployments whose pods it selects")


def _of_deployments(about: About, sight: Sight, wish: Wish, record: PrepareRecord | None) -> Iterator[Refusal]:
    for subject in sight.scene.subjects:
        name, found = f"deploy/{subject.name}", workload.decode(sight.deployments[subject.name])
        if found.is_ending:
            yield Refusal(f"{name} is being deleted")
        if subject.is_paused and subject.record is None:
            yield Refusal(
                f"{name} is paused", way_out=f"`kubectl rollout resume {name}`, or wait for whoever paused it"
            )
        given = (subject.labels, *(one.labels for one in subject.editions))
        is_done = subject.labels.get(wish.key) == wish.value
        if wish.in_place and record is None and not subject.is_paused and not subject.is_single:
            yield Refusal(f"{name} is being rolled out", way_out=f"wait for `kubectl rollout status {name}`")
        if not wish.in_place and found.strategy == "Recreate" and not is_done:
            reason = f"{name} has the strategy Recreate: a rollout ends every pod before it makes the first"
            yield Refusal(reason, way_out="use --in-place")
        if any(labels.get(wish.key, wish.value) != wish.value for labels in given):
            yield Refusal(f"{name} gives its pods another {wish.key}", way_out="choose another label with --label")


def _claims(about: About, sight: Sight) -> Iterator[tuple[str, Claim | None]]:
    for name, obj in sight.deployments.items():
        yield f"deploy/{name}", claim_on(obj, (_TEMPLATE_FIELD,))
    if sight.service is not None:
        yield f"svc/{about.service}", claim_on(sight.service, (_SELECTOR_FIELD,))


def _claimed(about: About, sight: Sight, wish: Wish) -> Iterator[Refusal]:
    del wish
    for name, claim in _claims(about, sight):
        if claim is not None:
            way_out = "commit the patch below where it is managed: the template first, the selector after its rollout"
            yield Refusal(f"{name}: {claim}, it would put back what we change", way_out=way_out)


async def _used(api: Api, about: About, wish: Wish, guards: Guards) -> list[Refusal]:
    """What else selects on the key: what it means would change under its feet."""
    found = [f"{one.kind} {one.name}" for one in (*guards.policies, *guards.onlookers) if wish.key in one.selector.keys]
    for obj in (await api.list(SERVICES, kube.Selection(about.namespace))).items:
        name = obj["metadata"]["name"]
        is_other = name != about.service and not name.startswith(REHEARSAL_PREFIX)
        if is_other and wish.key in ((obj.get("spec") or {}).get("selector") or {}):
            found.append(f"Service {name}")
    for obj in (await api.list(DEPLOYMENTS, kube.Selection(about.namespace))).items:
        found += [f"Deployment {obj['metadata']['name']}"] if _looks_at(obj, wish.key) else []
    way_out = "choose another label with --label"
    used = [Refusal(f"{one} selects on {wish.key} already", way_out=way_out) for one in dict.fromkeys(found)]
    return used + [Refusal(why) for why in guards.unread]


def _looks_at(obj: JsonObject, key: str) -> bool:
    """Whether a Deployment's selector, affinity or spread looks at the label."""
    spec = obj["spec"]
    inside = (spec.get("template") or {}).get("spec") or {}
    looked = [spec.get("selector"), inside.get("affinity"), inside.get("topologySpreadConstraints")]
    return json.dumps(key) in json.dumps(looked)


def _stuck(moves: Iterable[Move], wish: Wish) -> Iterator[Refusal]:
    for move in moves:
        if move.act is not Act.STUCK:
            continue
        if wish.is_abort:
            yield Refusal(move.reason, way_out="`tidegate restore` or `tidegate drain` it first")
            continue
        deployments = [name for name in move.names if name.startswith("Deployment/")]
        others = [name for name in move.names if not name.startswith("Deployment/")]
        ways = []
        if deployments:
            ways.append(f"name {', '.join(one.replace('Deployment/', 'deploy/') for one in deployments)} too")
        if others:
            where = "" if all(one.startswith("pod/") for one in others) else " (template and pods)"
            ways.append(f"give {', '.join(others)} the label {wish.key}={wish.value}{where} first")
        yield Refusal(f"the Service selects {', '.join(move.names)} too, without the label", way_out="; ".join(ways))


def _consequences(about: About, sight: Sight, wish: Wish) -> Iterator[str]:
    if wish.is_abort:
        if not wish.in_place:
            yield "the Deployments are rolled out once more, back to their template of before"
        return
    yield "from then on `cut` flips only this label, and the ReplicaSet keeps the pod"
    yield "write the label into your manifests too: what replaces the Deployment or the Service whole takes it off"
    if wish.in_place:
        yield "no pod is restarted; the Deployments are paused for a moment, and older ReplicaSets get the label too"
        return
    yield "every pod is replaced; older ReplicaSets get the label too, so that a rollback stays in the Service"
    pods = [pod.decode(obj) for obj in sight.pods.values()]
    bare = [one for one in pods if not one.is_gated and not one.is_terminating]
    if bare:
        yield f"{len(bare)} of {len(pods)} pods have no gate: the rollout itself may lose requests; --in-place does not"
    for name, obj in sight.deployments.items():
        rolling = ((obj["spec"].get("strategy") or {}).get("rollingUpdate")) or {}
        if rolling.get("maxUnavailable") not in (None, 0, "0", "0%"):
            yield f"deploy/{name} lets {rolling['maxUnavailable']} of its pods be missing during a rollout"


def patch_of(about: About, wish: Wish) -> str:
    """What to commit where a GitOps manager keeps the fields, in the order that loses nothing."""
    label = f"{wish.key}: {json.dumps(wish.value)}"
    parts = ["# 1. Commit this, and wait until its rollout is complete."]
    for name in about.deployments:
        parts += [
            "apiVersion: apps/v1", "kind: Deployment", f"metadata: {{name: {name}, namespace: {about.namespace}}}",
            "spec:", "  template:", "    metadata:", "      labels:", f"        {label}", "---",
        ]  # fmt: skip
    parts += [
        "# 2. Then this.",
        "apiVersion: v1", "kind: Service", f"metadata: {{name: {about.service}, namespace: {about.namespace}}}",
        "spec:", "  selector:", f"    {label}", "",
    ]  # fmt: skip
    return "\n".join(parts)
