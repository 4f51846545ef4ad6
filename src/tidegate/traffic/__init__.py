"""Who gets traffic and why; label arithmetic. Pure: nouns in, nouns with reasons in sentences out.

Public surface:

- ``routes(service, slices, node="", external=False) -> Routes``: who gets new traffic, each endpoint with its reason.
- ``selections(pod, services)``, ``selecting(pod, services)``: who selects a pod; which label the others miss.
- ``listings(pod, slices)``: which slices list a pod; ``every_endpoint(pod)``: where no route may lead;
  ``serving_endpoints(pod, slices)``: where it must listen for its quiet to be readable.
- ``cut(pod, services, owner_selector) -> LabelCut``, ``isolation(pod, services, owner) -> LabelCut | None``,
  ``tombstone(pod, token)``: labels to set.
- ``Census(pods, services, slices, workloads)``: all of it indexed; whose revision is what (``Revision``).
- ``warnings_of(service, census)``, ``all_held(pods)``, ``hold_warnings(held, now)``: ``Finding``s with their next step.
- ``floors(pod, services, slices, needed, leaving) -> Floor...``: what each Service would keep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tidegate.late import late

# Names that are modules' too: these have to be there before anybody imports the modules.
from tidegate.traffic.held import Held, all_held, held, hold_warnings
from tidegate.traffic.routes import Candidate, Routes, routes, slices_of

if TYPE_CHECKING:
    from tidegate.traffic.census import Census
    from tidegate.traffic.finding import Finding
    from tidegate.traffic.floor import Floor, floors
    from tidegate.traffic.labels import LabelCut, cut, isolation, not_isolated, tombstone
    from tidegate.traffic.listing import Listing, every_endpoint, listings, serving_endpoints
    from tidegate.traffic.revision import Revision
    from tidegate.traffic.selection import Selection, selecting, selections
    from tidegate.traffic.warnings import warnings_of

__all__ = [
    "Candidate", "Census", "Finding", "Floor", "Held", "LabelCut", "Listing", "Revision", "Routes", "Selection",
    "all_held", "cut", "every_endpoint", "floors", "held", "hold_warnings", "isolation", "listings", "not_isolated",
    "routes", "selecting", "selections", "serving_endpoints", "slices_of", "tombstone", "warnings_of",
]  # fmt: skip

__getattr__ = late(
    __name__,
    {
        "Census": "census",
        "Finding": "finding",
        "Floor": "floor",
        "LabelCut": "labels",
        "Listing": "listing",
        "Revision": "revision",
        "Selection": "selection",
        "cut": "labels",
        "every_endpoint": "listing",
        "floors": "floor",
        "isolation": "labels",
        "listings": "listing",
        "not_isolated": "labels",
        "selecting": "selection",
        "selections": "selection",
        "serving_endpoints": "listing",
        "tombstone": "labels",
        "warnings_of": "warnings",
    },
)
