"""``uninstall``: an installation is taken away, and no gate is opened by it.

A hold lives in its node's agent and holder, and a workload whose template asks for a gate needs a holder on each node:
without one the kubelet tells its pods to stop at once. So held gates are waited for, and templates with gates refuse
the whole of it, as do pods that a verb holds. Each step is safe to repeat: the next run finishes what one began.

The order: the webhook, so that no new pod gets a gate; releases, while the operator can put right what they changed;
the operator, while there are holders for its own gate; agents, holders and coordinator; the kinds, and the namespace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tidegate.client.install import DAEMONSETS, IMAGE, RESOURCES, RUNNING, named, until_ready
from tidegate.client.own_objects import free_objects, objects_over
from tidegate.client.release.gate import free_gatings
from tidegate.client.release.labels import free_labellings
from tidegate.engine.owners import KINDS
from tidegate.kube.api import DEPLOYMENTS, NAMESPACES, NODES, PODS, SERVICES, Deletion, JsonObject, Resource, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import ApiError, KubeError
from tidegate.model.names import GATE_PATH, GATE_PORT, HELD, OPERATOR, PREPARED, SYSTEM_NAMESPACE, WEBHOOK

_WAY = f" (where the webhook gave it: `kubectl delete mutatingwebhookconfiguration {WEBHOOK}`, then restart its owner)"
WORKLOADS: tuple[Resource, ...] = (KINDS["Deployment"], KINDS["StatefulSet"], DAEMONSETS)
PREFIX = "tidegate.dev/"
_COMPONENT = "app.kubernetes.io/component"
LOOK_SECONDS = 1.0
Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class UninstallPlan:
    """``there`` are the objects that go, in order; ``image`` sweeps the nodes, empty where there is none to sweep with.

    ``holding`` are pods whose gates are held now: waited for. ``staying`` is what is left on objects of others.
    """

    there: tuple[JsonObject, ...]
    image: str
    holding: tuple[str, ...]
    refused: tuple[str, ...]
    staying: tuple[str, ...]


async def plan_uninstall(client: KubeClient, manifests: Iterable[JsonObject], is_forced: bool) -> UninstallPlan:
    """Look at everything; changes nothing. ``is_forced``: templates and pods with gates do not refuse. Raises
    ``KubeError``."""
    there = [one for one in reversed(list(manifests)) if await _is_there(client, one)]
    pods = (await client.list(PODS)).items
    held = [_name(pod) for pod in pods if HELD in (pod["metadata"].get("labels") or {})]
    refused = [f"pod/{one} is held: `tidegate restore` gives it back, `tidegate drain` retires it" for one in held]
    if not is_forced:
        listed = [(resource, one) for resource in WORKLOADS for one in (await client.list(resource)).items]
        gated = [(resource, one) for resource, one in listed if not _is_ours(one)]
        for resource, one in gated:
            if _has_gate(one["spec"]["template"]["spec"]):
                what = f"{resource.kind.lower()}/{_name(one)}"
                refused.append(
                    f"{what} has a gate: without a holder its pods are told to stop at once; take it out first"
                )
        if not any(_has_gate(one["spec"]["template"]["spec"]) for _, one in gated):
            refused += [
                f"pod/{_name(pod)} has a gate: without a holder it is told to stop at once; it goes first{_WAY}"
                for pod in pods
                if _has_gate(pod["spec"]) and not _is_leaving(pod) and not _is_ours(pod)
            ]
    return UninstallPlan(
        tuple(there), await _image(client), tuple(_holding(pods)), tuple(refused), tuple(await _staying(client, pods))
    )


async def _is_there(client: KubeClient, manifest: JsonObject) -> bool:
    try:
        metadata = manifest["metadata"]
        await client.get(RESOURCES[manifest["kind"]], metadata["name"], metadata.get("namespace", ""))
    except ApiError as error:
        if error.is_not_found:
            return False
        raise
    return True


def _name(obj: JsonObject) -> str:
    return f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"


def _is_ours(obj: JsonObject) -> bool:
    """Whether it goes with the installation, in an order in which its gate is answered."""
    return bool(obj["metadata"].get("namespace") == SYSTEM_NAMESPACE)


def _has_gate(spec: JsonObject) -> bool:
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        call = ((container.get("lifecycle") or {}).get("preStop") or {}).get("httpGet") or {}
        if call.get("port") == GATE_PORT and str(call.get("path", "")).startswith(GATE_PATH):
            return True
    return False


def _holding(pods: Iterable[JsonObject]) -> list[str]:
    """Pods that are on their way out and have a gate: it is held, or was."""
    return sorted(_name(pod) for pod in pods if pod["metadata"].get("deletionTimestamp") and _has_gate(pod["spec"]))


def _is_leaving(pod: JsonObject) -> bool:
    """Whether its gate was opened or is held: that is waited for."""
    is_finished = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return is_finished or bool(pod["metadata"].get("deletionTimestamp"))


async def _image(client: KubeClient) -> str:
    """What runs on the nodes, or ran: the namespace says so too."""
    try:
        found = await client.get(NAMESPACES, SYSTEM_NAMESPACE)
        image = (found["metadata"].get("annotations") or {}).get(IMAGE, "")
        if image:
            return str(image)
        for one in (await client.list(DAEMONSETS, Selection(SYSTEM_NAMESPACE))).items:
            return str(one["spec"]["template"]["spec"]["containers"][0]["image"])
    except ApiError as error:
        if not error.is_not_found:
            raise
    return ""


async def _staying(client: KubeClient, pods: list[JsonObject]) -> list[str]:
    """Annotations and labels of ours on objects of others: they are records, and nobody's to delete unasked."""
    found = [("pod", one) for one in pods]
    found += [("service", one) for one in (await client.list(SERVICES)).items]
    found += [("deployment", one) for one in (await client.list(DEPLOYMENTS)).items]
    found += [("node", one) for one in (await client.list(NODES)).items]
    found += [("namespace", one) for one in (await client.list(NAMESPACES)).items]
    lines = []
    for kind, one in found:
        metadata = one["metadata"]
        if SYSTEM_NAMESPACE in (metadata.get("namespace"), metadata["name"]):
            continue
        keys = sorted(
            key for part in ("annotations", "labels") for key in metadata.get(part) or {} if key.startswith(PREFIX)
        )
        if keys:
            way = " (`tidegate prepare --abort` takes it back)" if PREPARED in keys else ""
            lines.append(f"{kind}/{_name(one).lstrip('/')}: {', '.join(keys)}{way}")
    return lines


async def carry_out_uninstall(
    client: KubeClient, plan: UninstallPlan, sweep: JsonObject | None, seconds: float, told: Told
) -> tuple[str, ...]:
    """Take it away; what is still there at the end, in sentences. ``sweep`` is the DaemonSet that takes the gate's
    redirect off every node. Raises ``KubeError``."""
    until = asyncio.get_running_loop().time() + seconds
    first = [one for one in plan.there if one["kind"] == "MutatingWebhookConfiguration"]
    operator = [one for one in plan.there if named(one) == f"deployment.apps/{OPERATOR}"]
    for one in first:  # from here on new pods get no gate that nobody will hold
        await _delete(client, one)
        told(f"{named(one)} deleted")
    if left := await _holds_over(client, until, told):
        return left
    # By the operator, where there is one: it knows what is to be put right on native objects.
    await objects_over(client, until if operator else 0.0, told)
    if left := await _ended(client, operator, until, told):  # while there are holders: it has a gate
        return left
    for name in await free_gatings(client):  # by a command line that nobody will run again
        told(f"deployment/{name} is as it was before a release began to put the gate into it, and goes on")
    for name, why in (await free_labellings(client)).items():
        told(f"deployment/{name} is left {why}" if why else f"deployment/{name} has its label, all of it, and goes on")
    await free_objects(client, told)
    workloads = [one for one in plan.there if one["kind"] in RUNNING and one not in operator]
    if left := await _ended(client, workloads, until, told):
        return left
    if sweep is not None:
        await client.apply(DAEMONSETS, sweep)
        told(f"{named(sweep)} takes the table inet tidegate off every node")
        left = await until_ready(client, [sweep], until - asyncio.get_running_loop().time(), lambda _: None)
        if left:
            return tuple(f"not swept: {one}" for one in left)
        await _delete(client, sweep)
    for one in plan.there:
        if one not in (*first, *operator, *workloads):
            await _delete(client, one)
            told(f"{named(one)} deleted")
    return await _namespace_gone(client, until)


async def _holds_over(client: KubeClient, until: float, told: Told) -> tuple[str, ...]:
    last: list[str] = []
    while holding := _holding((await client.list(PODS)).items):
        if holding != last:
            told(f"waiting for held gates: {', '.join(holding)}")
            last = holding
        if asyncio.get_running_loop().time() >= until:
            return tuple(f"the gate of pod/{one} is still held: no agent and no holder was deleted" for one in holding)
        await asyncio.sleep(LOOK_SECONDS)
    return ()


async def _ended(client: KubeClient, workloads: list[JsonObject], until: float, told: Told) -> tuple[str, ...]:
    """These are deleted, and none of their pods is left: an agent ends when its last hold is over."""
    for one in workloads:
        await _delete(client, one)
        told(f"{named(one)} deleted")
    components = [one["metadata"].get("labels", {}).get(_COMPONENT, "") for one in workloads]
    select = Selection(SYSTEM_NAMESPACE, f"app.kubernetes.io/name=tidegate,{_COMPONENT} in ({','.join(components)})")
    last = 0
    while workloads and (pods := (await client.list(PODS, select)).items):
        if len(pods) != last:
            told(f"waiting for {len(pods)} pods of ours to end")
            last = len(pods)
        if asyncio.get_running_loop().time() >= until:
            return tuple(f"pod/{_name(one)} has not ended" for one in pods)
        await asyncio.sleep(LOOK_SECONDS)
    return ()


async def _namespace_gone(client: KubeClient, until: float) -> tuple[str, ...]:
    while True:
        try:
            await client.get(NAMESPACES, SYSTEM_NAMESPACE)
        except ApiError as error:
            if error.is_not_found:
                return ()
            raise
        if asyncio.get_running_loop().time() >= until:
            return (f"namespace/{SYSTEM_NAMESPACE} has not ended",)
        await asyncio.sleep(LOOK_SECONDS)


async def _delete(client: KubeClient, manifest: JsonObject) -> None:
    metadata = manifest["metadata"]
    try:
        await client.delete(
            RESOURCES[manifest["kind"]], metadata["name"], metadata.get("namespace", ""),
            Deletion(propagation="Background"),
        )  # fmt: skip
    except KubeError as error:
        if not (isinstance(error, ApiError) and error.is_not_found):
            raise
