"""Act: one performer for each kind of step. Every write tests what it was decided on, and is safe to repeat.

A strategy's own performers stand in files of their own and are named in ``PERFORMERS``. Steps that take long (DRAIN,
ASK, MEASURE) are ``background``: the engine goes on looking meanwhile.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from tidegate.client.drain import drain_pod
from tidegate.client.options import Identity, VerbOptions
from tidegate.client.release.gate import gate_in_place
from tidegate.client.release.look import Sight
from tidegate.engine.act import Step as Change
from tidegate.engine.ledger import Ledger
from tidegate.kube.api import DEPLOYMENTS, JsonObject, Patch, Resource
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, KubeError
from tidegate.model.names import Ending
from tidegate.model.workload import HASH_LABEL
from tidegate.release import template as templates
from tidegate.release.plan import Act, Step

CHANGE_CAUSE = "kubernetes.io/change-cause"


@dataclass(frozen=True, slots=True)
class Ground:
    """What performers act through. ``seed`` is of names and tokens, None draws them."""

    client: KubeClient
    identity: Identity
    ledger: Ledger | None = None
    seed: int | None = None
    drain_seconds: float = 300.0


class Failed(KubeError):
    """A step that came to nothing, with why: it is tried again."""


Performer = Callable[[Ground, Sight, Step], Awaitable[None]]


async def perform(ground: Ground, sight: Sight, step: Step) -> None:
    """Make one step. Raises ``KubeError`` (a conflict where something changed since it was decided: look again)."""
    await PERFORMERS[step.act](ground, sight, step)


async def write(ground: Ground, resource: Resource, obj: JsonObject, changes: list[Change]) -> JsonObject:
    """A JSON patch on ``obj`` exactly as it was read. Raises ``ApiError``: 409 or 422 where it changed."""
    metadata = obj["metadata"]
    tests: list[Change] = [
        {"op": "test", "path": "/metadata/uid", "value": metadata["uid"]},
        {"op": "test", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]},
    ]
    patch = Patch([*tests, *changes], "json")
    return await ground.client.patch(resource, metadata["name"], patch, metadata.get("namespace", ""))


def is_stale(error: ApiError) -> bool:
    """Whether a write was refused because its object is not as it was read (a failed ``test`` is 422), or is gone."""
    return error.is_conflict or error.is_not_found or error.code == 422


async def _set_template(ground: Ground, sight: Sight, step: Step) -> None:
    """The new template, gated; or that of a revision to go back to, as its ReplicaSet has it."""
    deployment = _deployment(sight)
    revision = step.detail.get("revision")
    template = sight.template
    if revision:
        found = next((one for one in sight.replicasets.values() if _hash(one) == revision), None)
        if found is None:
            raise Failed(f"there is no ReplicaSet of revision {revision} any more")
        template = templates.labelled(found["spec"]["template"], {})
        labels = template["metadata"].get("labels") or {}
        template["metadata"]["labels"] = {key: value for key, value in labels.items() if key != HASH_LABEL}
    changes: list[Change] = [{"op": "replace", "path": "/spec/template", "value": template}]
    if deployment["spec"].get("paused"):
        changes.append({"op": "remove", "path": "/spec/paused"})
    await write(ground, DEPLOYMENTS, deployment, changes)


async def _hold(ground: Ground, sight: Sight, step: Step) -> None:
    await write(ground, DEPLOYMENTS, _deployment(sight), [{"op": "add", "path": "/spec/paused", "value": True}])


async def _continue(ground: Ground, sight: Sight, step: Step) -> None:
    deployment = _deployment(sight)
    if deployment["spec"].get("paused"):
        await write(ground, DEPLOYMENTS, deployment, [{"op": "remove", "path": "/spec/paused"}])


async def _gate(ground: Ground, sight: Sight, step: Step) -> None:
    await gate_in_place(ground.client, sight, step.subject)


async def _drain(ground: Ground, sight: Sight, step: Step) -> None:
    """One pod after the other, each replaced first. Raises ``Failed`` at the first that is not verified."""
    for name in step.pods:
        options = VerbOptions(
            timeout_seconds=ground.drain_seconds,
            identity=ground.identity,
            ledger=ground.ledger,
            seed=ground.seed,
            reason=step.reason,
        )
        try:
            result = await drain_pod(ground.client, sight.entry.namespace, name, options)
        except ApiError as error:
            if not error.is_not_found:
                raise
            continue
        if result.result not in (Ending.VERIFIED, Ending.ASSUMED, Ending.FORCED, Ending.VERIFIED_EXCEPT):
            raise Failed(f"pod/{name} was not drained: {result}")


def _deployment(sight: Sight) -> JsonObject:
    if sight.deployment is None:
        raise Failed(f"there is no deployment/{sight.entry.spec.workload}")
    return sight.deployment


def _hash(replicaset: JsonObject) -> str:
    return str((replicaset["metadata"].get("labels") or {}).get(HASH_LABEL, ""))


PERFORMERS: Mapping[Act, Performer] = {
    Act.SET_TEMPLATE: _set_template,
    Act.HOLD: _hold,
    Act.CONTINUE: _continue,
    Act.GATE: _gate,
    Act.DRAIN: _drain,
}
BACKGROUND = frozenset({Act.DRAIN, Act.ASK, Act.MEASURE})
"""Steps that take long: they run beside the engine, one of each kind and subject at a time."""
