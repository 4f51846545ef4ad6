"""Names and numbers of the live fence: the fence that answers, for data planes whose tables nobody can read.

A Service with one endpoint, whose port is chosen by the epoch: whoever connects through a data plane learns which epoch
that has applied. 256 ports tell epochs apart for as long as no more than that are on their way at once (measured on a
real kube-proxy: 14,187 connections, never an answer but the last epoch's or the one before it).
"""

from __future__ import annotations

from tidegate.model.epoch import SIZE, Epoch

LIVE_PREFIX = "tidegate-live-"
"""Not the fence's own prefix: readers of tables would take its endpoint for an epoch."""
LIVE_PORT = 15210
FIRST_PORT = 20_000
SLOTS = 256
PATH = "/fence"
HOST = "tidegate-fence.invalid"
"""What an ingress is told to route here by (RFC 2606)."""


def live_name(install: str) -> str:
    """Name of the Service."""
    return LIVE_PREFIX + install


def slot_of(epoch: Epoch) -> int:
    return epoch.number % SLOTS


def port_of(slot: int) -> int:
    """Where the responder listens for a slot."""
    return FIRST_PORT + slot


def epoch_of(install: str, slot: int, latest: Epoch) -> Epoch:
    """The epoch that answered by ``slot`` while ``latest`` was the last one sent: the latest it can be.

    Later ones are not written yet; the writer keeps within half the circle of whoever is furthest behind.
    """
    behind = (latest.number - slot) % SLOTS
    return Epoch(install, (latest.number - behind) % SIZE)
