"""The floor: how many other ready endpoints each Service must keep when a pod leaves it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tidegate.model.endpointslice import EndpointSlice
from tidegate.model.pod import Pod
from tidegate.model.service import Service
from tidegate.traffic.routes import slices_of


@dataclass(frozen=True, slots=True)
class Floor:
    """What is left of ``service`` without the pod. ``scope``: where its traffic keeps to (``on node-1``,
    ``in zone b``), or empty."""

    service: Service
    left: int
    needed: int
    scope: str = ""

    @property
    def is_kept(self) -> bool:
        return self.left >= self.needed

    def __str__(self) -> str:
        scope = f" {self.scope}" if self.scope else ""
        return f"{self.service} would keep {self.left} other ready endpoints{scope}, the floor is {self.needed}"


def floors(
    pod: Pod, services: Iterable[Service], slices: Iterable[EndpointSlice], needed: int = 1, leaving: Iterable[str] = ()
) -> tuple[Floor, ...]:
    """The floor of each of ``services`` when ``pod`` leaves. ``leaving``: uids of pods that are being drained too."""
    gone = {pod.uid, *leaving}
    found = []
    every = tuple(slices)
    for service in services:
        entries = [entry for slice_ in slices_of(service, every) for entry in slice_.endpoints if entry.is_ready]
        others = {(entry.uid or entry.addresses): entry for entry in entries if entry.uid not in gone}
        found.append(Floor(service, len(others), needed))
        if service.is_local_internally or service.is_local_externally or service.keeps_to == "node":
            local = sum(other.node == pod.node for other in others.values())
            found.append(Floor(service, local, min(needed, 1), f"on {pod.node}"))
        zone = next((entry.zone for entry in entries if entry.uid == pod.uid), "")
        if zone and service.keeps_to == "zone":
            near = sum(other.zone == zone for other in others.values())
            found.append(Floor(service, near, min(needed, 1), f"in zone {zone}"))
    return tuple(found)
