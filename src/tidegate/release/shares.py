"""How many pods a canary's weight takes: by the ratio of pods, or behind a router that divides requests by itself."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.release.scene import Edition, Scene


@dataclass(frozen=True, slots=True)
class Share:
    """Pods of either revision. ``stable`` is None where it is not ours to change."""

    canary: int
    stable: int | None

    def percent(self, stable_now: int) -> int:
        """Of new connections that go to the canary where only the ratio of pods counts, rounded to nearest."""
        stable = stable_now if self.stable is None else self.stable
        total = self.canary + stable
        return round(100 * self.canary / total) if total else 0


def by_ratio(scene: Scene, stable: Edition, weight: int) -> Share:
    """The most pods whose share is at most ``weight`` percent, but one at least: a smaller share there is not.

    An autoscaler's own revision is left as it is: then the canary is added to it, and is never larger than it is to be
    in the end.
    """
    total = scene.replicas
    if weight <= 0:
        return Share(0, None if stable.autoscaler else total)
    if weight >= 100:
        return Share(total, 0)
    if stable.autoscaler:
        return Share(max(1, min(total, stable.desired * weight // (100 - weight))), None)
    canary = max(1, total * weight // 100)
    return Share(canary, max(1, total - canary))


def by_router(scene: Scene, stable: Edition, weight: int) -> Share:
    """Enough pods for ``weight`` percent of what all of them serve, one at least: it has to answer headers and probes.

    The stable revision keeps all of its own until the end: the way back is a change of weights.
    """
    return Share(max(1, -(-scene.replicas * weight // 100)), None if stable.autoscaler else scene.replicas)
