"""Which EndpointSlices list a pod, and under which addresses new traffic could reach it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tidegate.model.endpoint import Endpoint
from tidegate.model.endpointslice import EndpointSlice, SliceEndpoint
from tidegate.model.pod import Pod


@dataclass(frozen=True, slots=True)
class Listing:
    """One slice's entry for a pod. ``by`` is ``uid``, or ``address`` for a slice that names no pod."""

    slice: EndpointSlice
    endpoint: SliceEndpoint
    by: str

    @property
    def service(self) -> str:
        """``namespace/name`` of the Service the slice belongs to, or the slice's own where it names none."""
        return f"{self.slice.namespace}/{self.slice.service}" if self.slice.service else str(self.slice)

    def __str__(self) -> str:
        by = " by address" if self.by == "address" else ""
        return f"EndpointSlice {self.slice} of {self.service} lists {self.endpoint}{by}"


def listings(pod: Pod, slices: Iterable[EndpointSlice]) -> tuple[Listing, ...]:
    """Every entry for ``pod`` in ``slices``; hand in those of all namespaces, written by whomever.

    By uid, and by address where an entry names no pod: custom controllers and mirrored Endpoints write such. An entry
    that names ANOTHER pod at this address is that pod's (addresses are used again). A host-network pod shares its
    address with its node, so there the port must be its own too.
    """
    found = []
    for slice_ in slices:
        for endpoint in slice_.endpoints:
            if endpoint.uid:
                if pod.uid and endpoint.uid == pod.uid:
                    found.append(Listing(slice_, endpoint, "uid"))
            elif any(own.covers(at) for own in every_endpoint(pod) for at in slice_.endpoints_of(endpoint)):
                found.append(Listing(slice_, endpoint, "address"))
    return tuple(found)


def every_endpoint(pod: Pod) -> tuple[Endpoint, ...]:
    """Where no route may lead once the pod is drained: all ports of its addresses.

    For a host-network pod only the ports it declares, its addresses are the node's.
    """
    if not pod.host_network:
        return tuple(Endpoint(ip) for ip in pod.ips)
    return tuple(Endpoint(ip, port.number, port.protocol) for ip in pod.ips for port in pod.ports)


def serving_endpoints(pod: Pod, slices: Iterable[EndpointSlice]) -> tuple[Endpoint, ...]:
    """Where the pod serves, as its slices say: each must have a LISTEN socket for its quiet to be readable."""
    served = {at for listing in listings(pod, slices) for at in listing.slice.endpoints_of(listing.endpoint)}
    return tuple(sorted(at for at in served if at.port and at.protocol == "TCP"))
