"""From what was listed and heard to the document that ``-o json`` prints. Pure: facts and the instant are arguments."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tidegate.client.status_nodes import Heard
from tidegate.client.ungated import why_ungated, without_gate
from tidegate.dataplane.facts import Facts, Route
from tidegate.drain.source import suspects
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import earliest_by_install
from tidegate.model.names import DRAIN_RESULT
from tidegate.model.pod import Pod
from tidegate.model.service import Service
from tidegate.model.workload import Workload
from tidegate.traffic import Census, Finding, Held, every_endpoint, held, hold_warnings, routes, selections, warnings_of
from tidegate.traffic.revision import Revision, owner_of

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scope:
    """What a status is about: the Services, pods and workloads to show, out of everything that was listed.

    ``only`` narrows each Service to the endpoints of one pod, and compares that pod with every Service there is.
    """

    services: tuple[Service, ...] = ()
    pods: tuple[Pod, ...] = ()
    workloads: tuple[Workload, ...] = ()
    only: Pod | None = None


class Sight:
    """One look: what was listed, what the nodes said, and when."""

    def __init__(self, census: Census, heard: Heard, now: datetime) -> None:
        self.census = census
        self.heard = heard
        self.now = now
        self._by_service: dict[str, dict[str, list[Route]]] = {}

    # --- a Service ---

    def service(self, one: Service, only: Pod | None = None) -> Document:
        """A Service with its endpoints, its revisions, and where each node sends."""
        found = routes(one, self.census.slices_of(one))
        shown = [
            candidate
            for candidate in found.candidates
            if only is None or candidate.entry.uid == only.uid or candidate.endpoint.address in only.ips
        ]
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
                "zone": candidate.entry.zone,
                **_revision(self._revision_of(self.census.pod_of(candidate.entry))),
            }
            for candidate in shown
        ]
        return {
            "namespace": one.namespace,
            "name": one.name,
            "type": "headless" if one.is_headless else one.type,
            "selector": None if one.selector is None else str(one.selector),
            "addresses": [address for address in one.cluster_ips if address != "None"],
            "endpoints": entries,
            "nodes": [self._node_of(one, facts) for _, facts in sorted(self.heard.facts.items())],
            "reasons": list(found.reasons),
            "warnings": [_warning(finding) for finding in warnings_of(one, self.census)],
        }

    def _node_of(self, one: Service, facts: Facts) -> Document:
        """Which revisions a node sends this Service's new connections to."""
        found: dict[Revision, set[Endpoint]] = {}
        for route in self._routes_of(facts, one):
            if leads(route, one):
                for to in route.endpoints:
                    found.setdefault(self._revision_of(self.census.pod_at(to.address)), set()).add(to)
        return {
            "node": facts.source,
            "revisions": [
                {**_revision(revision), "endpoints": len(endpoints)} for revision, endpoints in sorted(found.items())
            ],
            "problem": _problem(facts),
        }

    def _routes_of(self, facts: Facts, one: Service) -> Iterable[Route]:
        """The routes that may be ``one``'s: those that name it, and those that name nobody."""
        if facts.source not in self._by_service:
            found: dict[str, list[Route]] = {}
            for route in facts.routes:
                found.setdefault(_service_of(route), []).append(route)
            self._by_service[facts.source] = found
        found = self._by_service[facts.source]
        return (*found.get(str(one), ()), *found.get("", ()))

    def _revision_of(self, pod: Pod | None) -> Revision:
        return Revision("", "", "") if pod is None else self.census.revision_of(pod)

    # --- a pod ---

    def pod(self, one: Pod, services: Iterable[Service]) -> Document:
        """A pod: which of ``services`` select it, which label the others miss, who lists it, who holds it."""
        found = selections(one, services)
        selecting = {str(selection.service) for selection in found if selection.selects}
        hold = held(one)
        close = {str(each) for each in self.census.near(one)}
        listed = self.census.listings_of(one)
        owner = owner_of(one)
        return {
            "namespace": one.namespace,
            "name": one.name,
            "node": one.node,
            "phase": one.phase,
            "ready": one.is_ready,
            "terminating": one.is_terminating,
            "gated": one.is_gated,
            "ungated": why_ungated(one),
            "owner": None if owner is None else f"{owner.kind}/{owner.name}",
            "released": one.owner is None and owner is not None,
            **_revision(self.census.revision_of(one)),
            "selected": [str(selection) for selection in found],
            "services": [
                {
                    "service": str(selection.service),
                    "selects": selection.selects,
                    "missing": list(selection.missing),
                    "close": str(selection.service) in close,
                    "listed": any(listing.service == str(selection.service) for listing in listed),
                }
                for selection in found
            ],
            "foreign": [str(listing) for listing in listed if listing.service not in selecting],
            "drain": None if hold is None or hold.record is None else hold.record.state,
            "held": hold is not None,
            "result": one.annotations.get(DRAIN_RESULT, ""),
            "suspected": list(suspects(one, self.census.services_of(one))),
            "routed_by": self._routed_by(one),
        }

    def _routed_by(self, one: Pod) -> list[str]:
        """The nodes that send new connections to the pod, whatever its Services say by now. A node's redirect of its
        kubelet's hook calls is no route."""
        own = every_endpoint(one)
        return [
            node
            for node, facts in sorted(self.heard.facts.items())
            if any(route.via != "redirect" for at in own for route in facts.routes_to(at))
        ]

    def hold(self, one: Held) -> Document:
        """Who holds a pod, why, until when, and what to do about it."""
        record, result = one.record, one.result
        return {
            "namespace": one.pod.namespace,
            "name": one.pod.name,
            "verb": one.verb,
            "state": "" if record is None else record.state,
            "by": "" if record is None else record.by,
            "reason": "" if record is None else record.reason,
            "since": "" if record is None else record.at,
            "until": "" if record is None else record.until,
            "forced": "" if record is None else record.forced,
            "expired": one.is_expired(self.now),
            "at_work": one.is_at_work(self.now),
            "sealed": one.is_sealed,
            "result": None if result is None else result.result.value,
            "result_reason": "" if result is None else result.reason,
            "problem": one.problem,
            "warnings": [_warning(finding) for finding in hold_warnings(one, self.now)],
            "next": list(one.next_steps),
        }

    # --- a workload ---

    def workload(self, one: Workload) -> Document:
        """A workload: its pods by revision, its ReplicaSets, and the pods that were its own."""
        pods = self.census.owned_by(one)
        by_revision: dict[Revision, list[Pod]] = {}
        for pod in pods:
            if pod.owner is not None:
                by_revision.setdefault(self.census.revision_of(pod), []).append(pod)
        children = sorted(self.census.children_of(one), key=lambda child: (child.revision, child.name))
        return {
            "kind": one.kind,
            "namespace": one.namespace,
            "name": one.name,
            "desired": one.desired,
            "ready": one.ready,
            "selector": "" if one.selector is None else str(one.selector),
            "revisions": [
                {**_revision(revision), "pods": len(found), "ready": sum(pod.is_ready for pod in found)}
                for revision, found in sorted(by_revision.items())
            ],
            "replicasets": [
                {"name": each.name, "revision": each.revision, "desired": each.desired, "ready": each.ready}
                for each in children
                if each.kind == "ReplicaSet" and (each.desired or self.census.owned_by(each))
            ],
            "ungated": sum(not pod.is_gated for pod in pods if not pod.is_terminating and not pod.is_finished),
            "without_gate": [
                {"reason": each.reason, "pods": list(each.pods), "next": each.next_step}
                for each in without_gate(one, pods)
            ],
            "released": [pod.name for pod in pods if pod.owner is None],
        }

    # --- the whole ---

    def document(self, scope: Scope) -> Document:
        """The parts that every subject has."""
        services = [self.service(one, scope.only) for one in scope.services]
        shown = {(one["namespace"], entry["pod"]) for one in services for entry in one["endpoints"]}
        shown |= {(pod.namespace, pod.name) for pod in scope.pods}
        names = {str(one) for one in scope.services}
        own = {ip for pod in scope.pods for ip in pod.ips}
        return {
            "services": services,
            "pods": [
                self.pod(one, self.census.services if scope.only is one else self.census.near(one))
                for one in scope.pods
            ],
            "workloads": [self.workload(one) for one in scope.workloads],
            "nodes": [self._node(facts, names, own) for _, facts in sorted(self.heard.facts.items())],
            "drains": [drain for drain in self.heard.drains if (drain["namespace"], drain["pod"]) in shown],
            "connections": self._connections(services),
            "observers": list(self.heard.observers),
            "routers": list(self.heard.routers),
        }

    def _node(self, facts: Facts, services: set[str], own: set[str]) -> Document:
        """The routes of the Services shown, and those that lead to a pod shown though its Service is another now."""
        shown = [
            route
            for route in facts.routes
            if route.via != "redirect"
            and (_service_of(route) in services or any(to.address in own for to in route.endpoints))
        ]
        return {
            "node": facts.source,
            "fence": {epoch.install: epoch.number for epoch in earliest_by_install(facts.fence)},
            "routes": [{"via": str(route), "endpoints": [str(to) for to in route.endpoints]} for route in shown],
            "problem": _problem(facts),
        }

    def _connections(self, services: Iterable[Document]) -> list[Document]:
        entries = {entry["address"]: entry["pod"] for one in services for entry in one["endpoints"] if entry["node"]}
        found = []
        for address, pod in sorted(entries.items()):
            quiet = self.heard.quiet.get(address)
            if quiet is None:
                continue
            clients = sorted({socket.remote.address for socket in quiet.live})
            problem = "; ".join(map(str, quiet.unreadable))
            found.append(
                {"pod": pod, "address": address, "live": len(quiet.live), "clients": clients, "problem": problem}
            )
        return found


def leads(route: Route, service: Service) -> bool:
    """Whether ``route`` is one of ``service``'s: by the name in the dump, by its addresses where there is none."""
    name = _service_of(route)
    if name:
        return name == str(service)
    if route.via == "node-port":
        return any(port.node_port == route.port for port in service.ports)
    return route.via == "cluster-ip" and route.address in service.cluster_ips


def asked_about(census: Census, scope: Scope) -> tuple[Endpoint, ...]:
    """What to ask the nodes about: every endpoint shown, and every pod that a node could still send to.

    All pods of the namespaces, not only those selected now: a node that lags routes to those selected before.
    """
    if scope.only is not None and not scope.only.host_network:
        return tuple(Endpoint(ip) for ip in scope.only.ips)
    spaces = {one.namespace for one in scope.services} | {pod.namespace for pod in scope.pods}
    found = {at for pod in census.pods if pod.namespace in spaces for at in every_endpoint(pod) if not pod.is_finished}
    whole = {at.address for at in found if not at.port}
    for one in scope.services:
        listed = {
            at for slice_ in census.slices_of(one) for entry in slice_.endpoints for at in slice_.endpoints_of(entry)
        }
        found |= {at for at in listed if at.address not in whole}
    return tuple(sorted(found))


def served_by(census: Census, scope: Scope) -> dict[str, tuple[Endpoint, ...]]:
    """The endpoints shown, by the node whose agent reads their connections."""
    found: dict[str, set[Endpoint]] = {}
    for one in scope.services:
        for candidate in routes(one, census.slices_of(one)).candidates:
            entry = candidate.entry
            is_shown = scope.only is None or entry.uid == scope.only.uid or candidate.endpoint.address in scope.only.ips
            if entry.node and is_shown:
                found.setdefault(entry.node, set()).add(candidate.endpoint)
    return {node: tuple(sorted(endpoints)) for node, endpoints in sorted(found.items())}


def _service_of(route: Route) -> str:
    return route.service.partition(":")[0]


def _problem(facts: Facts) -> str:
    return "; ".join(map(str, facts.unreadable))


def _revision(revision: Revision) -> Document:
    return {"revision": str(revision) if revision.workload else "", "version": revision.version}


def _warning(finding: Finding) -> Document:
    return {"name": finding.name, "sentence": finding.sentence, "next": finding.next_step}
