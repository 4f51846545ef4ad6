"""Label arithmetic: which labels to change so that a pod leaves its Services, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from tidegate.model.names import CUT_VALUE, TOMBSTONE, TOMBSTONE_VALUE
from tidegate.model.pod import Pod
from tidegate.model.selector import Selector
from tidegate.model.service import Service


@dataclass(frozen=True, slots=True)
class LabelCut:
    """Labels to set so that no Service selects the pod. ``releases``: its ReplicaSet lets go of it and replaces it."""

    labels: dict[str, str]
    releases: bool
    reasons: tuple[str, ...]


def cut(pod: Pod, services: Iterable[Service], owner: Selector | None) -> LabelCut:
    """The fewest labels that take ``pod`` out of ``services`` (those that select it); empty when there are none.

    A label the owner's selector also looks at is taken only when no other will do.
    """
    selecting = tuple(service for service in services if service.selects(pod.namespace, pod.labels))
    wanted = [set(service.selector.keys) for service in selecting if service.selector is not None]
    owned = set(owner.keys) if owner is not None else set()
    keys = _fewest(wanted, owned)
    after = pod.labels | dict.fromkeys(keys, CUT_VALUE)
    releases = owner is not None and owner.matches(pod.labels) and not owner.matches(after)
    reasons = [f"{service} selects it by {service.selector}" for service in selecting]
    if releases:
        reasons.append(f"its owner selects by {owner} too: it lets go of the pod and makes a replacement")
    return LabelCut(dict.fromkeys(keys, CUT_VALUE), releases, tuple(reasons))


def _fewest(wanted: list[set[str]], owned: set[str]) -> tuple[str, ...]:
    """The smallest set of keys that meets every one of ``wanted``, free keys before owned ones."""
    keys = sorted(set().union(*wanted), key=lambda key: (key in owned, key))
    choices = (choice for size in range(len(keys) + 1) for choice in combinations(keys, size))
    covering = [choice for choice in choices if all(one.intersection(choice) for one in wanted)]
    return min(covering, key=lambda choice: (sum(key in owned for key in choice), len(choice), choice))


def tombstone(pod: Pod, token: str) -> dict[str, str]:
    """All of the pod's own labels flipped: no selector by equality, restored or rolled back, selects it again."""
    return dict.fromkeys(sorted(pod.labels), TOMBSTONE_VALUE) | {TOMBSTONE: token}
