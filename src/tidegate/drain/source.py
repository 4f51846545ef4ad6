"""The source: do the EndpointSlices still send new traffic to a pod that was cut?

Every data plane is told by EndpointSlices, so a drain begins where they do: a complete LIST must be clean before an
epoch may be written. In label mode clean means *in none*. In gate mode the pod stays listed while it terminates, and
clean means *terminating, and in each Service another endpoint is ready*, for without one Kubernetes falls back to
those that terminate (KEP-1669) and the pod is routed to until it is gone.

Under ``externalTrafficPolicy: Local`` each node falls back by itself. The last endpoint of a node is clean all the
same where the Service has a health check port (``Source.lasts``): to turn away what comes from outside is then up to
load balancers, and the port is asked whether they were told to.
"""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.drain.state import Mode
from tidegate.model.endpointslice import EndpointSlice, SliceEndpoint
from tidegate.model.pod import Pod
from tidegate.model.service import Service
from tidegate.model.workload import Workload
from tidegate.traffic.listing import Listing, listings
from tidegate.traffic.routes import slices_of
from tidegate.traffic.selection import selecting


@dataclass(frozen=True, slots=True)
class Question:
    """What was listed, all namespaces, at one instant.

    ``seen``: Services in whose slices the pod was seen at any time before (``Source.seen`` of the last look).
    ``labels_before``: the pod's labels before a label cut, None when they are its labels still.
    """

    mode: Mode
    pod: Pod
    services: tuple[Service, ...]
    slices: tuple[EndpointSlice, ...]
    seen: tuple[str, ...] = ()
    labels_before: dict[str, str] | None = None


@dataclass(frozen=True, slots=True, order=True)
class LastOfNode:
    """The pod is the last endpoint of ``service`` (namespace/name) on ``node``, which so routes what comes from outside
    to it until it is gone; ``port`` is the node's health check port, by which load balancers know."""

    service: str
    node: str
    port: int

    def __str__(self) -> str:
        return f"{self.service} on {self.node}"


@dataclass(frozen=True, slots=True)
class Source:
    """The answer: clean, or a sentence for each thing that still sends traffic. ``seen`` is for the next question;
    ``lasts`` are the Services of which the pod is the last on its node, and load balancers can know."""

    dirty: tuple[str, ...]
    seen: tuple[str, ...]
    lasts: tuple[LastOfNode, ...] = ()

    @property
    def is_clean(self) -> bool:
        return not self.dirty


def look(question: Question) -> Source:
    """Whether the slices are clean of the pod."""
    routes = _routes(question.services)
    draining = {str(service) for service in question.services if service.is_draining}
    listed = listings(question.pod, question.slices)
    found = [one for one in listed if not (one.slice.service and one.service in draining)]
    seen = tuple(sorted({*question.seen, *(listing.service for listing in found)}))
    if question.mode is Mode.LABEL:
        dirty = [str(listing) for listing in found]
        dirty += [f"Service {service} selects it again" for service in selecting(question.pod, routes)]
    else:
        dirty = [reason for listing in found for reason in _still_sends(question, listing)]
    return Source((*dirty, *_never_seen(question, seen)), seen, _lasts(question, found))


def _lasts(question: Question, found: list[Listing]) -> tuple[LastOfNode, ...]:
    """Gate mode: where only the node's own fallback is left."""
    if question.mode is not Mode.GATE:
        return ()
    by_name = {str(service): service for service in question.services}
    lasts = set()
    for listing in found:
        service = by_name.get(listing.service)
        entry = listing.endpoint
        if service is None or not _has_health_port(service) or entry.is_ready or not entry.is_serving:
            continue
        others = _others(question, service, listing.slice)
        if not any(other.is_ready and other.node == question.pod.node for other in others):
            lasts.add(LastOfNode(listing.service, question.pod.node, service.health_check_node_port))
    return tuple(sorted(lasts))


def _has_health_port(service: Service) -> bool:
    return service.is_local_externally and bool(service.health_check_node_port)


def _routes(services: tuple[Service, ...]) -> tuple[Service, ...]:
    """All but those that keep cut pods scrapeable: they are no route (``Service.is_draining``)."""
    return tuple(service for service in services if not service.is_draining)


def _never_seen(question: Question, seen: tuple[str, ...]) -> tuple[str, ...]:
    """Absence that was never presence proves nothing: the EndpointSlice controller may not have got to it yet."""
    pod = question.pod
    if not pod.ips or pod.is_finished:
        return ()  # never in a slice, and never will be: nothing to wait for
    labels = pod.labels if question.labels_before is None else question.labels_before
    joined = [service for service in _routes(question.services) if service.selects(pod.namespace, labels)]
    return tuple(f"not seen in the EndpointSlices of {service} yet" for service in joined if str(service) not in seen)


def _still_sends(question: Question, listing: Listing) -> tuple[str, ...]:
    """Gate mode: why this entry still gets new traffic."""
    service = next((one for one in question.services if str(one) == listing.service), None)
    if service is None:
        return (f"{listing}, and no such Service was listed",)
    if listing.endpoint.is_terminating and service.is_headless:
        return ()  # no data plane routes it; ``suspects`` names those who may still hold the address
    if not listing.endpoint.is_terminating or listing.endpoint.is_ready:
        return (str(listing),)
    if not listing.endpoint.is_serving:
        return ()  # not even the fallback takes an endpoint that does not serve
    others = _others(question, service, listing.slice)
    if not any(other.is_ready for other in others):
        return (f"last endpoint: no other endpoint of {service} is ready",)
    is_local = service.is_local_internally or (service.is_local_externally and not _has_health_port(service))
    if is_local and not any(other.is_ready and other.node == question.pod.node for other in others):
        node = question.pod.node
        return (f"last endpoint: no other endpoint of {service} is ready on {node} (traffic policy Local)",)
    return ()


def _others(question: Question, service: Service, like: EndpointSlice) -> list[SliceEndpoint]:
    """The other endpoints that could take over what ``like`` lists: same Service, address family and port names."""
    names = {port.name for port in like.ports}
    return [
        one
        for slice_ in slices_of(service, question.slices)
        if slice_.address_type == like.address_type and names <= {port.name for port in slice_.ports}
        for one in slice_.endpoints
        if one.uid != question.pod.uid
    ]


def suspects(pod: Pod, services: tuple[Service, ...]) -> tuple[str, ...]:
    """Who may still hold the pod's address and cannot be asked, a sentence each: the result is ``assumed``."""
    return tuple(
        f"clients of the headless Service {service} keep its address for as long as DNS told them to"
        for service in selecting(pod, _routes(services))
        if service.is_headless
    )


def gate_exception(question: Question, workload: Workload | None) -> str | None:
    """Why the gate should be answered at once, in a sentence; None when it should be held.

    ``workload`` is the pod's topmost owner (a Deployment rather than its ReplicaSet), None when it is not known.
    """
    pod = question.pod
    if not pod.is_terminating:
        # Measured on 1.36.2: the endpoint stays ready for the whole hold, and a held hook stalls the pod's worker.
        return "no deletionTimestamp: a liveness restart or a node shutdown, the pod keeps its routes"
    for service in selecting(pod, question.services):
        if service.is_headless:
            continue
        if service.publish_not_ready_addresses:
            return f"publishNotReadyAddresses of {service} keeps it ready until it is gone"
        why = _no_replacement(pod, workload)
        if why and _is_last(question, service):
            return f"last endpoint of {service}: {why}"
    return None


def _is_last(question: Question, service: Service) -> bool:
    """Whether the pod is listed and every other endpoint is on its way out: one not ready yet may still become so."""
    found = listings(question.pod, slices_of(service, question.slices))
    others = [other for listing in found for other in _others(question, service, listing.slice)]
    return bool(found) and all(other.is_terminating for other in others)


def _no_replacement(pod: Pod, workload: Workload | None) -> str | None:
    """Why no other endpoint can come while the pod lives, None when one can."""
    if workload is None:
        return "nobody makes a replacement of a bare pod" if pod.owner is None else None
    if workload.is_ending:
        return f"{workload} is deleted"
    if workload.replicas == 0:
        return f"{workload} is scaled to zero"
    if not workload.can_surge:
        strategy = f" with strategy {workload.strategy}" if workload.strategy else ""
        return f"{workload}{strategy} makes the next pod only when this one is gone"
    return None
