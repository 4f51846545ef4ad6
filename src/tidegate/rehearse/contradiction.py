"""What contradicts a ``verified`` drain, from the lab's own journal alone. Pure.

The promise is S (no new connection can arrive) and L (those in flight have ended) when the process is told to stop.
Lost requests are a poor witness of a broken promise: few die although a node still routes, and who lost one must be
guessed where no answer came. The kernels' journal needs no luck: it has every table and every connection.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tidegate.model.names import Ending
from tidegate.rehearse.footage import Footage
from tidegate.rehearse.timeline import PodTrack, endpoint


def contradictions(tracks: Sequence[PodTrack], footage: Footage, *, is_exact: bool) -> tuple[str, ...]:
    """A sentence for every node that still routed to a verified pod when it was told to stop (or ever after), and for
    every connection that was given to it after that instant, or that it had not closed by then.

    ``is_exact``: the journal's instants are those at which things happened (virtual time). On a busy machine a kernel
    process notes that a pod has closed its end some ms after everybody else knew, so there the last question is not
    asked; the first two are about what that process itself decides.
    """
    found: list[str] = []
    for track in tracks:
        result = track.seen.result
        if result is not None and result.result is Ending.VERIFIED and track.sigterm_at is not None and track.seen.ip:
            found += _routed(track, track.sigterm_at, _reused_at(track, tracks), footage)
            if is_exact:
                found += _cut_off(track, track.sigterm_at, footage)
    return tuple(found)


def _routed(track: PodTrack, stopped_at: float, until: float, footage: Footage) -> list[str]:
    """S: routes and new connections."""
    name, where = track.seen.name, endpoint(track.seen)
    found = []
    for node in sorted(footage.commits):
        for begin, end in footage.routed(node, where):
            if end > stopped_at and begin < until:
                when = f"{begin - stopped_at:.3f} s after" if begin > stopped_at else "when"
                found.append(f"{node} routed to {name} {when} it was told to stop")
    for one in footage.connections.get(where, ()):
        if stopped_at < one.opened_at < until:
            late = one.opened_at - stopped_at
            found.append(f"{one.node} gave {name} the connection of {one.source} {late:.3f} s after its SIGTERM")
    return found


def _cut_off(track: PodTrack, stopped_at: float, footage: Footage) -> list[str]:
    """L: connections in flight."""
    return [
        f"{track.seen.name} was told to stop with {one.source} connected"
        f" (for {stopped_at - one.opened_at:.3f} s, by {one.node})"
        for one in footage.connections.get(endpoint(track.seen), ())
        if one.opened_at <= stopped_at < one.pod_closed_at
    ]


def _reused_at(track: PodTrack, tracks: Sequence[PodTrack]) -> float:
    """When another pod got the address; from then on what is sent there is its own."""
    later = (
        other.seen.created_at
        for other in tracks
        if other.seen.uid != track.seen.uid
        and other.seen.ip == track.seen.ip
        and other.seen.created_at > track.seen.created_at
    )
    return min(later, default=math.inf)
