"""Leases on records: which process is at work, told from one that was killed.

A record names its ``holder`` and until when it is believed to be alive. Renewed while somebody works, given back
however they leave; a holder of this machine is looked for among its processes, and only another machine's is believed.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from tidegate.client.options import Identity
from tidegate.engine import act

LEASE_SECONDS = 15.0
"""How long a process is believed to be at work without a sign of life."""
RENEW_SECONDS = 5.0


class Leased(Protocol):
    """A record with a lease: a pod's, or a Service's while it is prepared."""

    @property
    def holder(self) -> str: ...

    @property
    def lease_until(self) -> str: ...


def is_at_work(record: Leased, identity: Identity, now: datetime, holder: str = "") -> bool:
    """Whether another process than ``holder`` (by default the one that asks) is at work, as far as can be known."""
    if not record.holder or record.holder == (holder or identity.holder):
        return False
    alive = identity.is_alive(record.holder)
    return bool(record.lease_until) and act.instant(now) < record.lease_until if alive is None else alive
