"""Everything that can happen to a drain. Events are facts that were observed, or acts of ours that have succeeded.

``at`` is seconds on a clock that never steps back (``loop.time()``). That of ``SourceClean`` is compared with
``FenceWritten.sent_at``, so both are on the clock of whoever lists and writes; the others on that of the keeper.
"""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.dataplane.sockets import Quiet
from tidegate.drain.acknowledgement import Acknowledgement
from tidegate.model.epoch import Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened at ``at``."""

    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut(Event):
    """The pod was taken out: its labels are patched (label mode), or its deletionTimestamp was seen (gate mode)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceClean(Event):
    """A quorum LIST of all EndpointSlices, finished at ``at``, sends no new traffic to the pod."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDirty(Event):
    """A LIST, or the watch since, shows slices that send new traffic to the pod. ``reasons``: which, why."""

    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceWritten(Event):
    """The API server took the fence's epoch. ``sent_at``: when that write was sent."""

    epoch: Epoch
    sent_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserversListed(Event):
    """Who holds a copy of the pod's endpoints. ``suspected``: others, that nobody can ask (sentences)."""

    observers: tuple[str, ...]
    suspected: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged(Event):
    """One observer answered, or failed to. Deliver in the order of the dumps: the latest answer holds."""

    acknowledgement: Acknowledgement


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketsRead(Event):
    """The pod's sockets were read; ``at`` is when the reading BEGAN."""

    quiet: Quiet


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstoned(Event):
    """The pod's own labels are flipped: no selector, restored or rolled back, can select it again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlinePassed(Event):
    """The last safe instant has come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bypassed(Event):
    """The drain cannot be carried out, or makes no sense: the reason in a sentence."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(Event):
    """The pre-check found a guard that would be breached. Nothing was changed."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(Event):
    """Somebody asked again for a drain that is past its deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored(Event):
    """The pod has its labels back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Released(Event):
    """The pod was told to stop: the gate answered, or the DELETE was taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone(Event):
    """The pod is no more."""


EVENTS: tuple[type[Event], ...] = (
    Cut, SourceClean, SourceDirty, FenceWritten, ObserversListed, Acknowledged, SocketsRead, Tombstoned,
    DeadlinePassed, Bypassed, Refused, Resumed, Restored, Released, Gone,
)  # fmt: skip
