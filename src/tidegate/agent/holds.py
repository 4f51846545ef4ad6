"""The agent's memory of its holds: what it held, and what it answered, in a journal that outlives it.

A hold that a journal shows begun and never answered died with an agent: whoever starts next records ``bypassed``.
The result of a pod is the worst of its containers' last holds: a container whose hold died was stopped unproven,
whatever a later hold of its neighbour shows. A container that is asked for again was still running, so its last
hold counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tidegate.engine.journal import Entry, Journal
from tidegate.model.names import DrainResult, Ending

WORST_FIRST = (
    Ending.BYPASSED, Ending.REFUSED, Ending.TIMED_OUT, Ending.FORCED, Ending.ASSUMED, Ending.VERIFIED_EXCEPT,
    Ending.VERIFIED,
)  # fmt: skip
PODS_MAX = 1000


@dataclass(frozen=True, slots=True)
class HeldPod:
    """Whose hold it is."""

    uid: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class DeadHold:
    """A hold that nobody answered."""

    pod: HeldPod
    container: str


@dataclass(slots=True)
class Holds:
    """Journals holds and knows each container's last result."""

    journal: Journal
    _results: dict[str, dict[str, DrainResult]] = field(default_factory=dict)
    _open: dict[tuple[str, str], HeldPod] = field(default_factory=dict)

    def restore(self) -> list[DeadHold]:
        """Read the journal of the agent before; the holds that died with it, oldest first, are marked bypassed."""
        for entry in self.journal.entries():
            self._replay(entry)
        dead = [DeadHold(pod, container) for (_, container), pod in self._open.items()]
        for hold in dead:
            self.ended(hold.pod, hold.container, DrainResult(Ending.BYPASSED, "the agent ended during the hold"))
        return dead

    def began(self, pod: HeldPod, container: str) -> None:
        """A container's preStop is held. Its earlier result no longer counts."""
        self._open[(pod.uid, container)] = pod
        self._results.get(pod.uid, {}).pop(container, None)
        self.journal.record("hold", uid=pod.uid, namespace=pod.namespace, pod=pod.name, container=container)

    def ended(self, pod: HeldPod, container: str, result: DrainResult) -> None:
        """The hold was answered, and the answer arrived, or it died (``result`` says so)."""
        self._open.pop((pod.uid, container), None)
        self._remember(pod.uid, container, result)
        self.journal.record(
            "hold-ended",
            uid=pod.uid,
            container=container,
            pod=pod.name,
            result=result.result.value,
            reason=result.reason,
            stragglers=list(result.stragglers),
            epoch=result.epoch,
            seconds=result.seconds,
        )

    def result_of(self, uid: str, now: DrainResult, containers: Iterable[str]) -> DrainResult:
        """What to record on the pod when ``containers`` are about to be answered with ``now``."""
        others = [
            result for name, result in sorted(self._results.get(uid, {}).items()) if name not in tuple(containers)
        ]
        return min([now, *others], key=lambda result: WORST_FIRST.index(result.result))

    def _remember(self, uid: str, container: str, result: DrainResult) -> None:
        self._results.setdefault(uid, {})[container] = result
        while len(self._results) > PODS_MAX:
            del self._results[next(iter(self._results))]

    def _replay(self, entry: Entry) -> None:
        uid, container = str(entry.get("uid", "")), str(entry.get("container", ""))
        if entry["event"] == "hold":
            self._open[(uid, container)] = HeldPod(uid, str(entry.get("namespace", "")), str(entry.get("pod", "")))
            self._results.get(uid, {}).pop(container, None)
        elif entry["event"] == "hold-ended":
            self._open.pop((uid, container), None)
            try:
                ending = Ending(entry.get("result"))
            except ValueError:
                ending = Ending.BYPASSED
            self._remember(uid, container, DrainResult(ending, str(entry.get("reason", ""))))
