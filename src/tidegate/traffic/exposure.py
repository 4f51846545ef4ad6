"""How long a pod that was leaving went on being routed to, after its deletion and after its SIGTERM.

What is not known stays unknown: an instant that was only bounded says so, and an observer that nobody could ask has no
figure. A pod is exposed while somebody routes to it and it was told to stop.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from tidegate.traffic.moments import is_gated

AGENT, SLICE = "agent", "EndpointSlice"
_SLEEP = re.compile(r"(?:/usr)?(?:/bin/)?sleep (\d+(?:\.\d+)?)s?;?")

JsonObject = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sigterm:
    """When the pod was told to stop, as far as that can be known. ``resolution_seconds`` is how coarse it is."""

    at: datetime | None = None
    source: str = ""
    resolution_seconds: float = 0.0
    gap: str = ""


@dataclass(frozen=True, slots=True)
class LetGo:
    """One observer: a node's data plane (as its agent reads it), or a Service's EndpointSlices.

    ``at``: when it ceased to route; None while it does, or where it is not known (``gap`` says why). ``is_bound``: it
    had let go when it was first looked at, so ``at`` is no later than that look and the truth is earlier.
    """

    observer: str
    kind: str
    at: datetime | None = None
    is_bound: bool = False
    gap: str = ""


@dataclass(frozen=True, slots=True)
class Exposure:
    """One pod's leaving. ``opened``: connections to it first seen after SIGTERM, at least; None: nobody could tell.

    ``ended`` is when it was looked at last: whoever still routed then, did so for at least that long.
    """

    namespace: str
    pod: str
    uid: str
    node: str
    deleted: datetime
    ended: datetime
    sigterm: Sigterm
    observers: tuple[LetGo, ...] = ()
    gone: datetime | None = None
    is_gated: bool = False
    result: str = ""
    opened: int | None = None

    def after_deletion(self, one: LetGo) -> float | None:
        """Seconds, at least that many while it has not let go; None when it is not known."""
        if one.gap:
            return None
        return max(0.0, ((one.at or self.ended) - self.deleted).total_seconds())

    def after_sigterm(self, one: LetGo) -> float | None:
        """As ``after_deletion``; 0.0 for one that had let go before."""
        if one.gap or self.sigterm.at is None:
            return None
        return max(0.0, ((one.at or self.ended) - self.sigterm.at).total_seconds())

    @property
    def last(self) -> LetGo | None:
        """Who routed to it longest, of those that are known; nodes before EndpointSlices, which only feed them."""
        known = [one for one in self.observers if not one.gap]
        nodes = [one for one in known if one.kind == AGENT]
        return max(nodes or known, key=lambda one: (one.at is None, one.at or self.ended), default=None)

    @property
    def exposed_to(self) -> tuple[str, ...]:
        """Who routed to it after SIGTERM, the longest first."""
        found = [(seconds, one.observer) for one in self._judged if (seconds := self.after_sigterm(one))]
        return tuple(observer for seconds, observer in sorted(found, key=lambda each: (-each[0], each[1])))

    @property
    def exposed_seconds(self) -> float | None:
        """For how long somebody did, at least. 0.0 only where every node was asked: who was silent may have routed."""
        found = max((self.after_sigterm(one) or 0.0 for one in self._judged), default=0.0)
        if self.sigterm.at is None or (not found and not self.is_whole):
            return None
        return found

    @property
    def held_seconds(self) -> float | None:
        """From its deletion until the last known observer had let go: the least that had to be waited."""
        return None if self.last is None else self.after_deletion(self.last)

    @property
    def is_whole(self) -> bool:
        """Whether every node was asked and has let go."""
        nodes = [one for one in self.observers if one.kind == AGENT]
        return bool(nodes) and all(one.at is not None for one in nodes)

    @property
    def _judged(self) -> tuple[LetGo, ...]:
        """Only a node's own word counts: slices say what nodes were told."""
        return tuple(one for one in self.observers if one.kind == AGENT and not one.gap)

    @property
    def sentence(self) -> str:
        """What was seen, and what it put at risk."""
        if self.sigterm.at is None:
            return f"when it was told to stop is not known: {self.sigterm.gap}"
        if self.exposed_seconds is None:
            told = max((self.after_sigterm(one) or 0.0 for one in self.observers if one.kind == SLICE), default=0.0)
            slices = f"its EndpointSlices sent traffic to it for {told:.1f} s after SIGTERM"
            return f"{slices}; whether every node had let go of it by then is not known"
        if not self.exposed_to:
            return "nobody routed to it when it was told to stop"
        opened = _opened(self.opened)
        by_name = {one.observer: one for one in self._judged}
        first, *others = self.exposed_to
        still = "at least " if by_name[first].at is None else ""
        more = [f"{name} for {self.after_sigterm(by_name[name]) or 0.0:.1f} s" for name in others[:2]]
        more += [f"{len(others) - 2} more nodes"] if len(others) > 2 else []
        also = f" ({', '.join(more)})" if more else ""
        return f"{first} still routed to it for {still}{self.exposed_seconds:.1f} s after SIGTERM{also}; {opened}"


def _opened(count: int | None) -> str:
    if count is None:
        return "how many connections were opened is not known"
    if not count:
        return "no connection was seen to be opened in that time, short ones may be missed"
    return f"at least {count} {'connections were' if count > 1 else 'connection was'} opened in that time"


@dataclass(frozen=True, slots=True)
class Judgement:
    """Of all that was seen. ``sleep_seconds``: what a preStop sleep would have had to be, for every pod alike;
    ``gate_seconds``: what a gate would have held each for (median, worst), or has where all have one. None without
    every node's own word. ``unknown``: pods of which nobody can say whether they were exposed."""

    pods: int
    exposed: int
    exposed_seconds: float | None
    opened: int | None
    sleep_seconds: int | None
    gate_seconds: tuple[float, float] | None
    unknown: int = 0
    is_gated: bool = False

    @property
    def sentences(self) -> tuple[str, ...]:
        if not self.pods:
            return ("no pod left while it was watched",)
        risk = f"{self.exposed} of {self.pods} pods were seen to be routed to after their SIGTERM"
        if self.exposed_seconds:
            risk += f", for {self.exposed_seconds:.1f} s at worst"
        if self.opened is not None:
            risk += f"; {_opened(self.opened)}" if self.exposed else ""
        if self.unknown:
            risk += f"; of {self.unknown} it is not known"
        if self.sleep_seconds is None or self.gate_seconds is None:
            return (risk, "what sleep would have been enough is not known: not every node could be asked")
        middle, worst = self.gate_seconds
        sleep = f"a preStop sleep of {self.sleep_seconds} s would have been enough this time, for every pod alike"
        figures = f"for {middle:.1f} s in the median and {worst:.1f} s at worst"
        gate = f"their gates held them {figures}"
        return (
            risk,
            sleep,
            gate if self.is_gated else f"a gate would have held them {figures}, and while it proves that",
        )


def judge(exposures: Iterable[Exposure]) -> Judgement:
    """All pods together."""
    seen = tuple(exposures)
    known = [one.exposed_seconds for one in seen if one.exposed_seconds is not None]
    opened = [one.opened for one in seen if one.opened is not None]
    needed = [one.held_seconds for one in seen if one.held_seconds is not None]
    is_whole = bool(seen) and all(one.is_whole for one in seen)
    is_gated = bool(seen) and all(one.is_gated and one.sigterm.at is not None for one in seen)
    held = needed
    if is_gated:
        held = [(one.sigterm.at - one.deleted).total_seconds() for one in seen if one.sigterm.at is not None]
    return Judgement(
        pods=len(seen),
        exposed=sum(1 for one in seen if one.exposed_to),
        exposed_seconds=max(known, default=None),
        opened=sum(opened) if opened else None,
        sleep_seconds=math.ceil(max(needed)) if is_whole else None,
        gate_seconds=(median(held), max(held)) if is_whole else None,
        unknown=sum(one.exposed_seconds is None for one in seen),
        is_gated=is_gated,
    )


def sigterm_of(pod: JsonObject, killing: tuple[datetime, float] | None, answered: datetime | None) -> Sigterm:
    """When it was told to stop. ``killing``: Event Killing and how coarse its instant is; ``answered``: when the gate's
    result was seen on it. Of several containers the first counts: from then on something of it is ending."""
    if is_gated(pod):
        source = "the gate's answer: its result was seen on the pod"
        gap = "" if answered is not None else "the gate's result was not seen on the pod"
        return Sigterm(answered, source if answered else "", 0.0, gap)
    if killing is None:
        return Sigterm(gap="no Event Killing was seen")
    waits = [_wait_of(one) for one in (pod.get("spec") or {}).get("containers") or ()]
    known = [seconds for seconds in waits if seconds is not None]
    if len(known) < len(waits):
        return Sigterm(gap="sent when its preStop hook ended, which nothing tells")
    at, resolution = killing
    wait = min(known, default=0.0)
    grace = float((pod.get("metadata") or {}).get("deletionGracePeriodSeconds") or math.inf)
    wait = min(wait, grace)
    after = f", and the {wait:g} s that its preStop sleeps" if wait else ""
    return Sigterm(at + timedelta(seconds=wait), f"Event Killing{after}", resolution)


def _wait_of(container: JsonObject) -> float | None:
    """How long its preStop hook takes by its own word; None where nothing tells."""
    hook = (container.get("lifecycle") or {}).get("preStop") or {}
    if not hook:
        return 0.0
    if "sleep" in hook:
        return float((hook["sleep"] or {}).get("seconds") or 0)
    command = [str(word) for word in (hook.get("exec") or {}).get("command") or ()]
    text = command[2] if len(command) == 3 and command[1] == "-c" else " ".join(command)
    found = _SLEEP.fullmatch(text.strip())
    return float(found[1]) if found else None
