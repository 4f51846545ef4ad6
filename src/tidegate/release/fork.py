"""The object by which a router divides requests between two Services, as it stands (``client/release/routers``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Fork:
    """``name`` is for people (``httproute/web``). ``shares``: Service -> percent, of those that the release knows.

    ``header`` (``name=value``): requests that bear it go to the canary's Service alone. ``is_borrowed``: a release has
    written to it, and what it was before is recorded on it.
    """

    name: str
    shares: Mapping[str, int] = field(default_factory=dict)
    header: str = ""
    is_borrowed: bool = False
