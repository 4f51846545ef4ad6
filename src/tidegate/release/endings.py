"""How pods of a release ended, and what is told of those that were not verified. The same for every strategy."""

from __future__ import annotations

from tidegate.release.scene import Scene

FINE = ("verified", "assumed", "forced", "verified-except")


def unverified(scene: Scene) -> tuple[str, ...]:
    """A sentence for each pod that ended in another way, by name."""
    return tuple(f"pod/{pod} ended {how}" for pod, how in sorted(scene.endings.items()) if not is_fine(how))


def faults(scene: Scene) -> tuple[str, ...]:
    """Of these the ones that nobody has agreed to: a pod without a gate may end so where ``ungated`` is ``proceed``."""
    if scene.spec.ungated != "proceed":
        return unverified(scene)
    return tuple(
        f"pod/{pod} ended {how}"
        for pod, how in sorted(scene.endings.items())
        if not is_fine(how) and how.partition(":")[0] != "ungated"
    )


def fresh_fault(scene: Scene) -> str:
    """The first that was not seen before, with where to read on; "" for none."""
    fresh = [one for one in faults(scene) if one not in scene.status.unverified]
    return f"{fresh[0]}; see `tidegate ledger`" if fresh else ""


def is_fine(ending: str) -> bool:
    """Whether an ending (a result's word, perhaps with its reason after a colon) needs nobody's agreement."""
    return ending.partition(":")[0] in FINE
