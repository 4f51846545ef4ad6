"""The agent's memory of its holds: what it held, and what it answered, in a journal that outlives it.

A hold that the journal of an agent that is gone shows begun and never answered died with it: who lives records
``bypassed``.
The result of a pod is the worst of its containers' last holds: a container whose hold died was stopped unproven,
whatever a later hold of its neighbour shows. A container that is asked for again was still running, so its last
hold counts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.agent.journals import Journals
from tidegate.engine.journal import Entry, Journal, read
from tidegate.model.names import DrainResult, Ending

WORST_FIRST = (
    Ending.BYPASSED, Ending.REFUSED, Ending.TIMED_OUT, Ending.FORCED, Ending.ASSUMED, Ending.VERIFIED_EXCEPT,
    Ending.VERIFIED,
)  # fmt: skip
DIED = DrainResult(Ending.BYPASSED, "the agent ended during the hold")
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
class _Account:
    """What a journal tells: the last result of each container, and who is held."""

    results: dict[str, dict[str, DrainResult]] = field(default_factory=dict)
    open: dict[tuple[str, str], HeldPod] = field(default_factory=dict)

    def begin(self, pod: HeldPod, container: str) -> None:
        self.open[(pod.uid, container)] = pod
        self.results.get(pod.uid, {}).pop(container, None)

    def end(self, uid: str, container: str, result: DrainResult) -> None:
        self.open.pop((uid, container), None)
        self.results.setdefault(uid, {})[container] = result
        while len(self.results) > PODS_MAX:
            del self.results[next(iter(self.results))]

    def replay(self, entry: Entry) -> None:
        uid, container = str(entry.get("uid", "")), str(entry.get("container", ""))
        if entry["event"] == "hold":
            self.begin(HeldPod(uid, str(entry.get("namespace", "")), str(entry.get("pod", ""))), container)
        elif entry["event"] == "hold-ended":
            try:
                ending = Ending(entry.get("result"))
            except ValueError:
                ending = Ending.BYPASSED
            self.end(uid, container, DrainResult(ending, str(entry.get("reason", ""))))


@dataclass(slots=True)
class Holds:
    """Journals holds and knows each container's last result, whichever agent of this node kept it."""

    journals: Journals
    _own: _Account = field(default_factory=_Account)
    _others: dict[Path, _Account] = field(default_factory=dict)
    _buried: dict[Path, tuple[int, int]] = field(default_factory=dict)
    """Inode and size of what agents that are gone have left, as it was when nothing in it was open any more."""

    @property
    def journal(self) -> Journal:
        return self.journals.own

    def restore(self) -> list[DeadHold]:
        """Read the journal of the agent that had our file before; the holds that died with it, oldest first, are marked
        bypassed."""
        for entry in self.journal.entries():
            self._own.replay(entry)
        dead = [DeadHold(pod, container) for (_, container), pod in self._own.open.items()]
        for hold in dead:
            self.ended(hold.pod, hold.container, DIED)
        return [*dead, *self.bury()]

    def bury(self) -> list[DeadHold]:
        """The holds of other agents that are gone: each told once, and marked bypassed in its agent's own journal."""
        dead = []
        for path in self.journals.orphaned():
            status = path.stat()
            is_known = self._buried.get(path) == (status.st_ino, status.st_size)
            if is_known:
                continue  # 4 MiB at most, and we are called every two seconds
            self._buried[path] = (status.st_ino, status.st_size)
            account = _Account()
            for entry in read(path):
                account.replay(entry)
            if not account.open:
                continue
            with contextlib.closing(Journal(str(path))) as theirs:
                for (_, container), pod in list(account.open.items()):
                    _write_end(theirs, pod, container, DIED)
                    dead.append(DeadHold(pod, container))
        return dead

    def began(self, pod: HeldPod, container: str) -> None:
        """A container's preStop is held. Its earlier result no longer counts."""
        self._own.begin(pod, container)
        self.journal.record("hold", uid=pod.uid, namespace=pod.namespace, pod=pod.name, container=container)

    def ended(self, pod: HeldPod, container: str, result: DrainResult) -> None:
        """The hold was answered, and the answer arrived, or it died (``result`` says so)."""
        self._own.end(pod.uid, container, result)
        _write_end(self.journal, pod, container, result)

    def result_of(self, uid: str, now: DrainResult, containers: Iterable[str]) -> DrainResult:
        """What to record on the pod when ``containers`` are about to be answered with ``now``. A container that another
        agent of this node answered, and we never held, counts as it was answered."""
        found = dict(self._elsewhere(uid))
        found |= self._own.results.get(uid, {})
        ours = {container for held, container in self._own.open if held == uid} | set(containers)
        others = [result for name, result in sorted(found.items()) if name not in ours]
        return min([now, *others], key=lambda result: WORST_FIRST.index(result.result))

    def _elsewhere(self, uid: str) -> Iterator[tuple[str, DrainResult]]:
        for other in self.journals.others:
            account = self._others.setdefault(other.path, _Account())
            for entry in other.fresh():
                account.replay(entry)
            yield from account.results.get(uid, {}).items()


def _write_end(journal: Journal, pod: HeldPod, container: str, result: DrainResult) -> None:
    journal.record(
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
