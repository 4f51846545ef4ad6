"""Kinds of proxies, by what they promise about order and atomicity. A lab's nodes all run one kind.

What differs is what a fence may rely on. From Kubernetes v1.36 client-go and pkg/proxy:

- ``nft-1.36``, ``iptables-1.36``: events of one resource arrive in order (InOrderInformers, on since 1.33) and a sync
  takes everything pending in one transaction.
- ``nft-1.36-relist``: the same, where a proxy that stood still has to list anew (its watch is too old, or the API
  server was restarted): it is told of the objects one after another, and a sync may begin in between.
- ``nft-1.30``: informers of before 1.33 queue by object (DeltaFIFO): an event joins the place of an earlier one of
  its own object, so on a busy proxy the fence's may be handled before older ones of other slices.
- ``ipvs-1.36``: a sync takes everything pending, then changes one Service after another.
- ``torn``: no kube-proxy. A reconciler that reads its caches while they change and applies one Service after another,
  as ingress controllers and home-made proxies do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Shape:
    """``queues_by_object``, ``lists_anew``, ``applies_in_pieces``, ``reads_while_it_changes``: see above.

    ``tells_families``: its healthz has a ``status`` by family (v1.33 and later). ``sync_seconds``: slice change ->
    kernel, least and most.
    """

    name: str
    sync_seconds: tuple[float, float] = (0.008, 0.030)
    queues_by_object: bool = False
    lists_anew: bool = False
    applies_in_pieces: bool = False
    reads_while_it_changes: bool = False
    tells_families: bool = True


ShapeName = Literal["nft-1.36", "nft-1.36-relist", "iptables-1.36", "nft-1.30", "ipvs-1.36", "torn"]
DEFAULT: ShapeName = "nft-1.36"
SHAPES: dict[str, Shape] = {
    shape.name: shape
    for shape in (
        Shape("nft-1.36"),
        Shape("nft-1.36-relist", lists_anew=True),
        Shape("iptables-1.36", sync_seconds=(0.020, 0.060)),
        Shape("nft-1.30", queues_by_object=True, tells_families=False),
        Shape("ipvs-1.36", applies_in_pieces=True),
        Shape("torn", applies_in_pieces=True, reads_while_it_changes=True, tells_families=False),
    )
}
