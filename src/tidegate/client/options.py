"""What a caller may choose about a drain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OnDeadline = Literal["hold", "proceed", "restore"]


@dataclass(frozen=True, slots=True)
class VerbOptions:
    """Options of one label-mode drain."""

    timeout_seconds: float = 300.0
    """From the cut to the deadline. No kubelet clock runs meanwhile, so this is the caller's patience only."""
    floor: int = 1
    """Other ready endpoints each Service must keep."""
    force: bool = False
    """Overrides floors, budgets and policies, never verification; the result is ``forced``."""
    on_deadline: OnDeadline = "hold"
    """``hold``: the pod stays cut, another run goes on; ``proceed``: delete it unverified; ``restore``: labels back."""
    settle_seconds: float = 15.0
    """How long to wait where nobody can be asked. The result is then ``assumed``."""
    app_stop_seconds: float = 30.0
    """How long beyond the grace period to watch the deleted pod end."""
    seed: int | None = None
    """Of the drain's token; ``None`` draws one."""
