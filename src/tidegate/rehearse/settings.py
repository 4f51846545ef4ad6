"""What a rehearsal does: its rows, sizes, rates and limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

HookKind = Literal["none", "sleep", "gate"]


@dataclass(frozen=True, slots=True)
class Row:
    """One rolling update to be judged: which preStop hook its pods carry, and what is wrong meanwhile."""

    name: str
    hook: HookKind = "none"
    sleep_seconds: int = 0
    """Of a ``sleep`` hook."""
    lag_seconds: float = 0.0
    """How far one node's proxy lags behind during the update. 0 = not at all."""
    freeze_seconds: float = 0.0
    """For how long one node's proxy stands still, from just before the update. 0 = not at all."""
    grace_seconds: int = 0
    """The pods' terminationGracePeriodSeconds. 0 = 60 with a gate, Kubernetes' default without."""

    @property
    def is_faulty(self) -> bool:
        """Is something wrong with one node's proxy?"""
        return bool(self.lag_seconds or self.freeze_seconds)

    @property
    def namespace(self) -> str:
        """The row's own namespace; names there must be DNS labels."""
        return f"demo-{self.name.replace('+', '-')}"

    @property
    def is_gated(self) -> bool:
        """Do its pods have the drain gate: is it Tidegate's row, and so held to Tidegate's promise?"""
        return self.hook == "gate"


LAG_SECONDS = 8.0
"""Longer than sleep-5 waits, shorter than sleep-15 does (issue: "one node's proxy lagging 8 s")."""

ROWS = (
    Row("plain"),
    Row("sleep-5", "sleep", 5),
    Row("sleep-15", "sleep", 15),
    Row("tidegate", "gate"),
    Row("sleep-5+lag", "sleep", 5, LAG_SECONDS),
    Row("tidegate+lag", "gate", 0, LAG_SECONDS),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one rehearsal. The defaults are the demo's."""

    rows: tuple[Row, ...] = ROWS
    seed: int = 0
    replicas: int = 4
    max_surge: str | int = "25%"
    max_unavailable: str | int = "25%"
    """The Deployment defaults (apps/v1): the update most people run."""
    probe_seconds: int = 1
    """The readiness probe's period; it is also how long an unready pod stays unknown."""
    startup_seconds: float = 0.2
    """How long the app takes to listen."""
    new_per_second: float = 400.0
    pool_per_second: float = 400.0
    requests_min: int = 10_000
    """A run with fewer is invalid. 0 = no minimum."""
    late_fraction_max: float = 0.01
    """More late starts than this make a run invalid: the load, not the cluster, was measured."""
    before_seconds: float = 1.0
    """Load on the old version alone, before the template is patched."""
    after_seconds: float = 0.5
    """Load on the new version alone, after every node has forgotten the old one."""
    row_seconds_max: float = 90.0
    """A row that takes longer is given up and invalid."""

    @property
    def rate_per_second(self) -> float:
        """Requests per second, both lanes."""
        return self.new_per_second + self.pool_per_second
