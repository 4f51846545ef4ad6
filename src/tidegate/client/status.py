"""``status_of``: who gets traffic of a Service (or of one pod's Services) and why, as every node shows it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

from tidegate.drain.source import suspects
from tidegate.kube.api import ENDPOINTSLICES, NODES, PODS, SERVICES, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import KubeError
from tidegate.model import endpointslice, pod, service
from tidegate.model.decode import Malformed
from tidegate.model.endpoint import Endpoint
from tidegate.model.endpointslice import EndpointSlice
from tidegate.model.names import DRAIN_RESULT, DrainRecord, decode_drain
from tidegate.model.pod import Pod
from tidegate.model.service import Service
from tidegate.observers.proxied import ProxiedAgents, ProxiedCoordinator, is_installed
from tidegate.observers.witness import Question
from tidegate.traffic import routes, selecting, selections

Kind = Literal["svc", "pod"]


@dataclass(frozen=True, slots=True)
class Status:
    """One answer. ``document`` is the JSON that ``-o json`` prints; docs/json.md names its keys."""

    document: dict[str, Any]


async def status_of(client: KubeClient, kind: Kind, namespace: str, name: str) -> Status:
    """The status of ``svc/NAME`` or ``pod/NAME``. Raises ``KubeError`` (404: no such object)."""
    subject: Pod | None = None
    if kind == "pod":
        subject = pod.decode(await client.get(PODS, name, namespace))
        known = [service.decode(obj) for obj in (await client.list(SERVICES, Selection(namespace))).items]
        wanted: tuple[Service, ...] = _services_of(subject, tuple(known))
    else:
        wanted = (service.decode(await client.get(SERVICES, name, namespace)),)
    slices = tuple(endpointslice.decode(obj) for obj in (await client.list(ENDPOINTSLICES)).items)
    nodes = sorted(obj["metadata"]["name"] for obj in (await client.list(NODES)).items)
    shown = [_service(one, slices, subject) for one in wanted]
    endpoints = _endpoints(shown, subject)
    drains, problem = await _drains(client)
    pods = {entry["pod"] for one in shown for entry in one["endpoints"]} | ({subject.name} if subject else set())
    document: dict[str, Any] = {
        "kind": kind,
        "namespace": namespace,
        "name": name,
        "services": shown,
        "nodes": await _nodes(client, nodes, endpoints) if endpoints else [],
        "drains": [drain for drain in drains if drain["namespace"] == namespace and drain["pod"] in pods],
        "connections": await _connections(client, shown),
        "problems": [problem] if problem else [],
    }
    if subject is not None:
        document["pod"] = _pod(subject, tuple(known))
    return Status(document)


def _services_of(subject: Pod, known: tuple[Service, ...]) -> tuple[Service, ...]:
    """The Services that select it, or did before it was cut."""
    record = _record(subject)
    before = record.labels if record is not None else {}
    return tuple(one for one in known if one in selecting(subject, known) or one.selects(subject.namespace, before))


def _record(subject: Pod) -> DrainRecord | None:
    try:
        return decode_drain(subject.annotations)
    except Malformed:
        return None


def _service(one: Service, slices: tuple[EndpointSlice, ...], subject: Pod | None) -> dict[str, Any]:
    found = routes(one, slices)
    entries = [
        {
            "pod": candidate.entry.pod,
            "address": str(candidate.endpoint),
            "node": candidate.entry.node,
            "ready": candidate.entry.is_ready,
            "serving": candidate.entry.is_serving,
            "terminating": candidate.entry.is_terminating,
            "routed": candidate.is_routed,
            "why": candidate.why,
        }
        for candidate in found.candidates
        if subject is None or candidate.entry.uid == subject.uid or candidate.endpoint.address in subject.ips
    ]
    return {"namespace": one.namespace, "name": one.name, "endpoints": entries, "reasons": list(found.reasons)}


def _endpoints(shown: list[dict[str, Any]], subject: Pod | None) -> tuple[Endpoint, ...]:
    """What to ask the nodes about: every endpoint shown, and all of a pod that no slice lists any more."""
    found = {Endpoint.parse(entry["address"]) for one in shown for entry in one["endpoints"]}
    if subject is not None and not subject.host_network:
        found = {Endpoint(ip) for ip in subject.ips}
    return tuple(sorted(found))


async def _nodes(client: KubeClient, names: list[str], endpoints: tuple[Endpoint, ...]) -> list[dict[str, Any]]:
    agents = ProxiedAgents(client)

    async def one(node: str) -> dict[str, Any]:
        try:
            facts = (await agents.ask(node, Question(endpoints))).facts
        except KubeError as error:
            return {"node": node, "fence": {}, "routes": [], "problem": f"cannot be asked: {error}"}
        routed = [
            {"via": str(route), "endpoints": [str(to) for to in route.endpoints]}
            for route in facts.routes
            if route.via != "redirect"
        ]
        return {
            "node": node,
            "fence": {epoch.install: epoch.number for epoch in facts.fence},
            "routes": routed,
            "problem": "; ".join(str(unreadable) for unreadable in facts.unreadable),
        }

    return list(await asyncio.gather(*(one(node) for node in names)))


async def _drains(client: KubeClient) -> tuple[list[dict[str, Any]], str]:
    """The drains the coordinator knows, or why it cannot be asked."""
    try:
        if not await is_installed(client):
            return [], "there is no coordinator in this cluster: drains can only be assumed"
        return list((await ProxiedCoordinator(client).status())["drains"]), ""
    except KubeError as error:
        return [], str(error)
    except (KeyError, TypeError):
        return [], "the coordinator's status is not understood"


async def _connections(client: KubeClient, shown: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Live connections of every shown endpoint, read by its node's agent."""
    agents = ProxiedAgents(client)
    entries = {entry["address"]: entry for one in shown for entry in one["endpoints"] if entry["node"]}

    async def one(address: str, node: str, name: str) -> dict[str, Any]:
        quiet = await agents.connections(node, (Endpoint.parse(address),))
        clients = sorted({socket.remote.address for socket in quiet.live})
        problem = "; ".join(str(unreadable) for unreadable in quiet.unreadable)
        return {"pod": name, "address": address, "live": len(quiet.live), "clients": clients, "problem": problem}

    found = (one(address, entry["node"], entry["pod"]) for address, entry in sorted(entries.items()))
    return list(await asyncio.gather(*found))


def _pod(subject: Pod, known: tuple[Service, ...]) -> dict[str, Any]:
    record = _record(subject)
    return {
        "name": subject.name,
        "node": subject.node,
        "ready": subject.is_ready,
        "terminating": subject.is_terminating,
        "gated": subject.is_gated,
        "selected": [str(selection) for selection in selections(subject, known)],
        "drain": None if record is None else record.state,
        "result": subject.annotations.get(DRAIN_RESULT, ""),
        "suspected": list(suspects(subject, known)),
    }
