"""The fence: a Service of ours whose only endpoint shows an epoch, and the rules of writing it.

Every data plane copies it into its own tables in order with everything else it learns about EndpointSlices. One that
shows epoch E has applied all that was written before E. So an epoch proves something about a drain only when its
write was sent after that drain's clean LIST had finished (``counts_for``); one write serves any number of drains.

Where a data plane does not promise order and atomicity, one epoch proves too little and a second is asked for
(``Second``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tidegate.drain.epochslice import Place, epoch_slice
from tidegate.model.endpoint import Endpoint
from tidegate.model.epoch import Epoch, earliest
from tidegate.model.names import FENCE_INSTALL, FENCE_PORT, SYSTEM_NAMESPACE, fence_name

__all__ = [
    "COALESCE_SECONDS", "Epoch", "FenceWrite", "Second", "earliest", "families_of", "fence_service", "fence_slice",
    "first_epoch", "next_epoch", "read_slice", "slice_name",
]  # fmt: skip

PORT_NAME = "fence"
COALESCE_SECONDS = 0.1
"""At most one write in this time: a write makes every kube-proxy sync once."""


@dataclass(frozen=True, slots=True)
class FenceWrite:
    """A write of ``epoch`` that the API server took. ``sent_at`` in the writer's monotonic seconds."""

    epoch: Epoch
    sent_at: float

    def counts_for(self, clean_at: float | None) -> bool:
        """Whether it fences a drain whose clean LIST finished at ``clean_at`` (same clock; None: none has)."""
        return clean_at is not None and clean_at < self.sent_at


@dataclass(slots=True)
class Second:
    """Whether an observer without order or atomicity has shown enough: an epoch that was *written after* one that
    counts was *seen* there.

    Why two: informers before client-go 1.33 queue by object, so the fence's event may be handled before an older one
    of another slice; a pass of a reconciler may read its caches while they change, and apply one Service after another.
    An epoch written after the first was seen is handled in a later turn, or a later pass, which had everything.
    """

    epoch: Epoch
    _seen_at: Epoch | None = None

    def saw(self, least: Epoch, latest: Epoch | None) -> bool:
        """It shows ``least`` now; ``latest`` is the last epoch sent to the API server by then. True: it is proven."""
        if not least.reaches(self.epoch):
            self._seen_at = None  # it started anew from an old list: what it showed before says nothing any more
            return False
        if self._seen_at is None:
            self._seen_at = latest if latest is not None and latest.reaches(least) else least
        return least.reaches(self._seen_at.next())

    def wants(self, latest: Epoch | None) -> bool:
        """Whether an epoch has to be written for it."""
        if self._seen_at is None:
            return False
        return latest is None or not latest.reaches(self._seen_at.next())


def first_epoch(install: str) -> Epoch:
    """The epoch a fence is installed with."""
    return Epoch(install, 0)


def next_epoch(found: Epoch, written: Epoch | None = None) -> Epoch:
    """The epoch to write over ``found``, after ``written`` (our own last try).

    A writer that lost a conflict never adopts what it finds: the winner's write may have been sent before our list.
    """
    latest = written if written is not None and written.reaches(found) else found
    return latest.next()


def fence_service(install: str) -> dict[str, Any]:
    """Manifest of the fence's Service: no selector, so nobody but us writes its slices.

    It has every address family its cluster has: a node's proxies of the two families sync apart (KEP-563).
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": fence_name(install), "namespace": SYSTEM_NAMESPACE, "labels": {FENCE_INSTALL: install}},
        "spec": {
            "type": "ClusterIP",
            "ipFamilyPolicy": "PreferDualStack",
            "ports": [{"name": PORT_NAME, "port": FENCE_PORT, "protocol": "TCP"}],
        },
    }


def families_of(service: dict[str, Any]) -> tuple[str, ...]:
    """The address families the API server gave the fence's Service: each has a slice of its own."""
    return tuple(service["spec"].get("ipFamilies") or ("IPv4",))


def slice_name(install: str, family: str) -> str:
    """Name of the slice that shows the epoch in ``family``."""
    return f"{fence_name(install)}-{family.lower()}"


def fence_slice(epoch: Epoch, resource_version: str = "", family: str = "IPv4") -> dict[str, Any]:
    """Manifest of the fence's EndpointSlice showing ``epoch``.

    ``resource_version`` of the slice it replaces makes the write lose, not overwrite, when another writer was first.
    """
    endpoint = epoch.endpoint4() if family == "IPv4" else epoch.endpoint6()
    place = Place(fence_name(epoch.install), slice_name(epoch.install, family), family, PORT_NAME)
    return epoch_slice(epoch, place, endpoint, resource_version)


def read_slice(slice_: dict[str, Any]) -> Epoch:
    """The epoch an EndpointSlice of the fence shows, from its endpoint alone. Raises ``ValueError``."""
    try:
        install = slice_["metadata"]["labels"][FENCE_INSTALL]
        [endpoint], [port] = slice_["endpoints"], slice_["ports"]
        [address] = endpoint["addresses"]
        shown = Endpoint(str(address), int(port["port"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"not a fence's slice: {error!r}") from error
    return Epoch.of_endpoint(str(install), shown)
