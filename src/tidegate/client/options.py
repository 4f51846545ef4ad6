"""What a caller may choose about a verb, and who the caller is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tidegate.engine.ledger import Ledger

OnDeadline = Literal["hold", "proceed", "restore"]
Verb = Literal["drain", "cut", "isolate", "restore"]


def nobody_knows(holder: str) -> bool | None:
    """Whether the process ``holder`` is alive: only its lease tells."""
    return None


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks. ``by`` is for people (user@host), ``holder`` names this very process.

    ``is_alive(holder)`` says whether the process of another record still runs: None where that cannot be known
    (another machine), and then its lease is believed.
    """

    by: str = ""
    holder: str = ""
    is_alive: Callable[[str], bool | None] = nobody_knows


@dataclass(frozen=True, slots=True)
class VerbOptions:
    """Options of one label-mode verb on one pod."""

    timeout_seconds: float = 300.0
    """From the cut to the deadline. No kubelet clock runs meanwhile, so this is the caller's patience only."""
    floor: int = 1
    """Other ready endpoints each Service must keep."""
    force: bool = False
    """Overrides floors, budgets and policies, never verification; the result is ``forced``."""
    keeps_budgets: bool = False
    """Force reaches floors only: a budget that allows nothing is waited for (a node's drain)."""
    on_deadline: OnDeadline = "hold"
    """``hold``: the pod stays cut, another run goes on; ``proceed``: delete it unverified; ``restore``: labels back."""
    settle_seconds: float = 15.0
    """How long to wait where nobody can be asked. The result is then ``assumed``."""
    app_stop_seconds: float = 30.0
    """How long beyond the grace period to watch the deleted pod end."""
    activity: str = ""
    """How to ask the workload whether it is working (model.activity), instead of the pod's own annotation."""
    services: tuple[str, ...] = ()
    """Names of the Services to leave; empty for all that select the pod. A drain leaves all."""
    replace: bool | None = None
    """Where labels allow: let the owner make the replacement, and see it routed, before the cut. None: a drain does, a
    cut does not."""
    reason: str = ""
    """Why, in the caller's words: recorded on the pod."""
    ttl_seconds: float = 24 * 3600.0
    """After which a pod that is kept is nobody's any more, and ``status --orphans`` says so; 0 for never."""
    identity: Identity = field(default_factory=Identity)
    """Who asks."""
    ledger: Ledger | None = None
    """Where a record of it is kept; None keeps none."""
    seed: int | None = None
    """Of the drain's token; ``None`` draws one."""

    def replaces(self, verb: Verb) -> bool:
        """Whether ``verb`` lets the owner make the replacement first, where labels allow."""
        return verb == "drain" if self.replace is None else self.replace
