"""What the feeder writes, and whom into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Member:
    """One endpoint. ``is_ending``: it terminates, and serves still."""

    address: str
    port: int
    is_ending: bool = False


@dataclass(frozen=True, slots=True)
class Sites:
    """What a pass writes: backends by host ("any" for all others), and the fence's endpoint, if it has one."""

    backends: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, tuple[Member, ...]] = field(default_factory=dict)
    fence: tuple[Member, ...] = ()


class Fed(Protocol):
    """A proxy that can be told."""

    async def apply(self, sites: Sites) -> None:
        """Make it so. Raises ``OSError`` while the proxy is not there."""
        ...
