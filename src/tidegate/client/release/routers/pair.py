"""What every router's object is read and written by: two Services, their shares, and how it was before."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.kube.api import JsonObject
from tidegate.release.fork import Fork

RECORD = "tidegate.dev/release-weights"
"""On the router's object while a release writes to it: the weights before, by place (null: none was given)."""
Reference = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pair:
    """The two Services of a canary, of one namespace."""

    namespace: str
    stable: str
    canary: str

    def place(self, reference: Reference) -> str:
        """Which of the two a reference names; "" for neither."""
        kind, group = reference.get("kind") or "Service", reference.get("group") or ""
        if kind != "Service" or group or (reference.get("namespace") or self.namespace) != self.namespace:
            return ""
        name = str(reference.get("name", ""))
        return name if name in (self.stable, self.canary) else ""

    def is_stable_in(self, references: Iterable[Reference]) -> bool:
        return any(self.place(one) == self.stable for one in references)

    def percent(self, references: Sequence[Reference], where: str) -> int:
        """The canary's share of a list of references to the two. Raises ``ValueError``."""
        others = [str(one.get("name", "?")) for one in references if not self.place(one)]
        if others:
            raise ValueError(
                f"{where} leads to {', '.join(others)} besides: a canary divides what is svc/{self.stable}'s"
            )
        weights = {self.place(one): int(one.get("weight", 1)) for one in references}
        total = sum(weights.values())
        if total <= 0:
            raise ValueError(f"{where} gives all of its backends the weight 0: nobody is served by it")
        return round(100 * weights.get(self.canary, 0) / total)

    def divided(self, references: Sequence[Reference], percent: int) -> list[JsonObject]:
        """The two with their weights; everything else about them is the stable one's."""
        of = next(one for one in references if self.place(one) == self.stable)
        return [{**of, "weight": 100 - percent}, {**of, "name": self.canary, "weight": percent}]

    def undivided(self, references: Sequence[Reference], weight: int | None) -> list[JsonObject]:
        """The stable one alone, with the weight that it had."""
        of = dict(next(one for one in references if self.place(one) == self.stable))
        of.pop("weight", None)
        return [of if weight is None else {**of, "weight": weight}]

    def fork(self, name: str, percents: Sequence[int], header: str, is_borrowed: bool) -> Fork:
        """Raises ``ValueError`` where the object does not lead to the stable Service, or its parts differ."""
        if not percents:
            raise ValueError(f"{name} does not lead to svc/{self.stable}")
        if len(set(percents)) > 1:
            text = ", ".join(f"{one} %" for one in percents)
            raise ValueError(f"{name}: its rules give svc/{self.canary} different shares ({text})")
        shares = {self.stable: 100 - percents[0]}
        if is_borrowed:
            shares[self.canary] = percents[0]
        return Fork(name, shares, header, is_borrowed)


def recorded(obj: JsonObject) -> dict[str, int | None] | None:
    """The weights before; None where no release writes to it. What is not understood is as if none had been given."""
    text = (obj["metadata"].get("annotations") or {}).get(RECORD)
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def record(weights: Mapping[str, int | None]) -> str:
    return json.dumps(dict(weights), sort_keys=True, separators=(",", ":"))
