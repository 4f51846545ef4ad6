"""What was found about the routes to one pod, and what it comes to: no route, a route, or not known. Unknown is never
"no route"."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from tidegate.client.probing import Tried
from tidegate.dataplane.facts import Facts
from tidegate.dataplane.sockets import Quiet
from tidegate.drain.acknowledgement import Verdict
from tidegate.model.endpointslice import EndpointSlice
from tidegate.model.epoch import Epoch
from tidegate.model.pod import Pod
from tidegate.model.service import Service
from tidegate.observers.coordinator import NodeView
from tidegate.traffic import listings, routes

Outcome = Literal["unrouted", "routed", "unknown", "assumed"]
CLIENTS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Listed:
    """One EndpointSlice's entry for the pod, and whether Kubernetes' rules send it new traffic."""

    slice: str
    service: str
    address: str
    is_routed: bool
    why: str

    def __str__(self) -> str:
        return f"EndpointSlice {self.slice} of {self.service} lists {self.address}: {self.why}"


@dataclass(frozen=True, slots=True)
class NodeWord:
    """One node: ``verdict`` is no-route (proven at the fence), route, or unknown. ``at`` in seconds since 1970."""

    node: str
    verdict: Literal["no-route", "route", "unknown"]
    detail: str
    routes: tuple[str, ...] = ()
    evidence: str = ""
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Verification:
    """Everything that was found. ``source``: why the slices are not clean, as the coordinator sees them."""

    pod: Pod
    services: tuple[str, ...]
    listed: tuple[Listed, ...]
    source: tuple[str, ...]
    nodes: tuple[NodeWord, ...]
    connections: Quiet
    suspected: tuple[str, ...]
    tried: tuple[Tried, ...]
    problems: tuple[str, ...]
    epoch: str
    seconds: float
    is_witnessed: bool
    outcome: Outcome = "unknown"
    reasons: tuple[str, ...] = ()

    @property
    def document(self) -> dict[str, Any]:
        """As docs/json.md lists it."""
        remotes = sorted({socket.remote.address for socket in self.connections.live})
        return {
            "namespace": self.pod.namespace,
            "pod": self.pod.name,
            "result": self.outcome,
            "reasons": list(self.reasons),
            "epoch": Epoch.parse(self.epoch).number if self.epoch else None,
            "seconds": self.seconds,
            "services": list(self.services),
            "listed": [
                {"slice": one.slice, "service": one.service, "address": one.address}
                | {"routed": one.is_routed, "why": one.why}
                for one in self.listed
            ],
            "nodes": [
                {"node": one.node, "verdict": one.verdict, "detail": one.detail, "routes": list(one.routes)}
                | {"evidence": one.evidence, "at": _instant(one.at)}
                for one in self.nodes
            ],
            "connections": {
                "live": len(self.connections.live),
                "clients": remotes[:CLIENTS_SHOWN],
                "problem": "; ".join(str(one) for one in self.connections.unreadable),
            },
            "suspected": list(self.suspected),
            "probes": [one.document for one in self.tried],
            "problems": list(self.problems),
        }


def listed_of(pod: Pod, services: Iterable[Service], slices: tuple[EndpointSlice, ...]) -> tuple[Listed, ...]:
    """Every entry of the pod, judged by its Service's rules where the Service is known."""
    found = []
    ruled = {str(one): [*routes(one, slices).candidates, *_local(one, slices, pod)] for one in services}
    for listing in listings(pod, slices):
        for at in listing.slice.endpoints_of(listing.endpoint):
            rules = [one for one in ruled.get(listing.service, ()) if one.endpoint == at]
            why = next((one.why for one in rules if one.is_routed), rules[0].why if rules else "by whom is not known")
            is_routed = any(one.is_routed for one in rules) if rules else listing.endpoint.is_ready
            found.append(Listed(str(listing.slice), listing.service, str(at), is_routed, why))
    return tuple(found)


def _local(service: Service, slices: tuple[EndpointSlice, ...], pod: Pod) -> list[Any]:
    """As the pod's own node sees it: with a Local policy that is where its traffic comes from."""
    if not pod.node or not (service.is_local_internally or service.is_local_externally):
        return []
    inside = routes(service, slices, pod.node).candidates
    return [*inside, *routes(service, slices, pod.node, external=True).candidates]


def judge_node(facts: Facts, view: NodeView | None) -> NodeWord:
    """A node's own tables as they are now, and what it has acknowledged at the fence (``view``; None: no fence was
    written, for the slices are not clean)."""
    shown = tuple(
        f"{route} -> {', '.join(map(str, route.endpoints))}" for route in facts.routes if route.via != "redirect"
    )
    if shown:
        return NodeWord(facts.source, "route", f"its tables lead to it: {shown[0]}", shown, facts.dump, facts.at)
    if view is not None and view.verdict == Verdict.CONFIRMED.value and not facts.unreadable:
        return NodeWord(facts.source, "no-route", view.detail, (), view.evidence, view.at)
    if view is not None and view.verdict == Verdict.REFUTED.value:
        return NodeWord(facts.source, "route", view.detail, (), view.evidence, view.at)
    if facts.unreadable:
        return NodeWord(facts.source, "unknown", "; ".join(map(str, facts.unreadable)), (), facts.dump, facts.at)
    why = f"{view.verdict}: {view.detail}" if view is not None else "no route now, and no fence to prove that it stays"
    return NodeWord(facts.source, "unknown", why, (), facts.dump, facts.at)


def outcome_of(found: Verification) -> Verification:
    """What it comes to, with its reasons: every route by name, else everything that is not known."""
    by_rule = [str(one) for one in found.listed if one.is_routed]
    by_node = [f"{one.node}: {one.detail}" for one in found.nodes if one.verdict == "route"]
    by_probe = [
        f"{one.node}: {one.reached} of {one.probes} connections through {one.through} ({one.through.service}) reach it"
        for one in found.tried
        if one.reached
    ]
    if by_rule or by_node or by_probe:
        return replace(found, outcome="routed", reasons=(*by_rule, *by_node, *by_probe))
    doubts = [*found.source, *found.problems]
    if found.source or not found.is_witnessed:  # while the slices are clean, an entry is one that terminates
        doubts += [str(one) for one in found.listed]
    doubts += [f"{one.node}: {one.detail}" for one in found.nodes if one.verdict != "no-route"]
    for one in found.tried:
        where = f"{one.node}: {one.through} ({one.through.service})"
        doubts += [f"{where}: {one.unmatched} of {one.probes} connections cannot be told"] if one.unmatched else []
        doubts += [f"{where}: {one.problem}"] if one.problem else []
    if not found.is_witnessed:
        return replace(found, outcome="assumed", reasons=(*doubts, *found.suspected))
    if doubts or not found.nodes or not found.epoch:
        return replace(found, outcome="unknown", reasons=tuple(doubts) or ("no fence was written",))
    return replace(found, outcome="assumed" if found.suspected else "unrouted", reasons=found.suspected)


def _instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if at else ""
