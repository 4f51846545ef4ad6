"""What every node says: one question each for the whole batch, and one more for the connections of its pods."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tidegate.dataplane.facts import Facts, Unreadable
from tidegate.dataplane.sockets import Quiet
from tidegate.kube.api import PODS, Selection
from tidegate.kube.client import KubeClient
from tidegate.kube.errors import KubeError
from tidegate.model.endpoint import Endpoint
from tidegate.model.names import SYSTEM_NAMESPACE
from tidegate.observers.proxied import AGENT_LABELS, ProxiedAgents, ProxiedCoordinator, is_installed
from tidegate.observers.witness import ENDPOINTS_MAX, Question

CONNECTIONS_MAX = 64
"""Endpoints in one question about connections: an agent takes no more."""


@dataclass(frozen=True, slots=True)
class Heard:
    """``facts`` by node, unreadable where it could not be asked; ``quiet`` by endpoint; ``drains``, ``observers`` (that
    are no nodes) and ``routers`` (who routes by a Service beside the nodes) as the coordinator tells them; ``problems``
    are what is missing."""

    facts: dict[str, Facts] = field(default_factory=dict)
    quiet: dict[str, Quiet] = field(default_factory=dict)
    drains: tuple[dict[str, Any], ...] = ()
    problems: tuple[str, ...] = ()
    observers: tuple[dict[str, Any], ...] = ()
    routers: tuple[dict[str, Any], ...] = ()


def _oddities(told: Mapping[str, Any]) -> Iterable[str]:
    """A standing straggler keeps every drain waiting: said once, for the cluster. So is who is vouched for."""
    for one in told.get("nodes") or ():
        silent = f" ({one['silent']})" if one.get("silent") else ""
        if one.get("next"):
            waits = f"every drain waits for it while its agent is silent{silent}"
            yield f"{one['node']} is {one['word']}: {waits}; {one['next']}"
        else:
            yield f"{one['node']} is not waited for while its agent is silent{silent}: {one['says']}, {one['word']}"


class Asking:
    """Asks agents and coordinator through pods/proxy."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self._agents = ProxiedAgents(client)
        self._coordinator = ProxiedCoordinator(client)

    async def ask(
        self,
        nodes: Iterable[str],
        endpoints: Iterable[Endpoint],
        served: Mapping[str, tuple[Endpoint, ...]],
        services: tuple[str, ...] = (),
    ) -> Heard:
        """Routes to ``endpoints`` on all ``nodes``; connections at ``served`` (by node); who else routes by
        ``services``. Never raises."""
        asked = tuple(endpoints)
        witnessed, problem = await self._nodes_with_agents()
        routes = asyncio.gather(*(self._facts(node, asked, witnessed) for node in nodes)) if asked else _none()
        wanted = [(node, batch) for node, all_ in sorted(served.items()) for batch in _batches(all_)]
        quiet = asyncio.gather(*(self._connections(node, batch, witnessed) for node, batch in wanted))
        (told, silence), facts, connections = await asyncio.gather(self._coordinators(services), routes, quiet)
        by_endpoint = {at: one for batch in connections for at, one in batch.items()}
        problems = (*(one for one in (silence, problem) if one), *_oddities(told))
        drains, observers, routers = (tuple(told.get(key, ())) for key in ("drains", "observers", "routers"))
        return Heard({one.source: one for one in facts}, by_endpoint, drains, problems, observers, routers)

    async def _nodes_with_agents(self) -> tuple[frozenset[str] | None, str]:
        """None where that cannot be told: then each is asked."""
        try:
            listed = (await self._client.list(PODS, Selection(SYSTEM_NAMESPACE, AGENT_LABELS))).items
        except KubeError as error:
            return None, f"the agents cannot be listed: {error}"
        return frozenset(str((obj.get("spec") or {}).get("nodeName") or "") for obj in listed), ""

    async def _facts(self, node: str, endpoints: tuple[Endpoint, ...], witnessed: frozenset[str] | None) -> Facts:
        try:
            if witnessed is not None and node not in witnessed:
                raise KubeError(f"there is no agent on {node}")
            answers = [
                (await self._agents.ask(node, Question(endpoints[start : start + ENDPOINTS_MAX]))).facts
                for start in range(0, len(endpoints), ENDPOINTS_MAX)
            ]
        except KubeError as error:
            return Facts(node, "", unreadable=(Unreadable(f"cannot be asked: {error}"),))
        first, *others = answers
        routes = first.routes + tuple(route for answer in others for route in answer.routes)
        unreadable = first.unreadable + tuple(one for answer in others for one in answer.unreadable)
        return Facts(node, first.dump, first.at, routes, first.fence, (), unreadable)

    async def _connections(
        self, node: str, batch: tuple[Endpoint, ...], witnessed: frozenset[str] | None
    ) -> dict[str, Quiet]:
        if witnessed is not None and node not in witnessed:
            missing = Quiet(unreadable=(Unreadable(f"there is no agent on {node}"),))
            return {str(at): missing for at in batch}
        found = await self._agents.connections(node, batch)
        return {str(at): _of(found, at, batch) for at in batch}

    async def _coordinators(self, services: tuple[str, ...]) -> tuple[dict[str, list[dict[str, Any]]], str]:
        """The drains the coordinator knows, its observers and who routes by ``services``; or why it cannot be asked."""
        try:
            if not await is_installed(self._client):
                return {}, "there is no coordinator in this cluster: drains can only be assumed"
            told = await self._coordinator.status(services)
        except KubeError as error:
            return {}, str(error)
        if not all(isinstance(told.get(key, []), list) for key in ("drains", "observers", "routers")):
            return {}, "the coordinator's status is not understood"
        return told, "" if "drains" in told else "the coordinator's status is not understood"


async def _none() -> list[Facts]:
    return []


def _batches(endpoints: tuple[Endpoint, ...]) -> Iterable[tuple[Endpoint, ...]]:
    return (endpoints[start : start + CONNECTIONS_MAX] for start in range(0, len(endpoints), CONNECTIONS_MAX))


def _of(found: Quiet, at: Endpoint, batch: tuple[Endpoint, ...]) -> Quiet:
    """The part of an answer about many endpoints that is about one. What names no endpoint is about all of them."""
    live = tuple(socket for socket in found.live if at.covers(socket.local))
    others = [f"{other}:" for other in batch if other != at]
    unreadable = tuple(one for one in found.unreadable if not any(other in one.reason for other in others))
    return Quiet(live, unreadable)
