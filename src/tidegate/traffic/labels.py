"""Label arithmetic: which labels to change so that a pod leaves its Services, and what follows from it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from tidegate.model.names import CUT_VALUE, ISOLATED_VALUE, TOMBSTONE, TOMBSTONE_VALUE
from tidegate.model.pod import Pod
from tidegate.model.selector import Requirement, Selector
from tidegate.model.service import Service
from tidegate.model.workload import HASH_LABEL, Workload

Labels = Mapping[str, str | None]
"""Labels to set; None removes one."""


@dataclass(frozen=True, slots=True)
class LabelCut:
    """Labels to set, None to remove one, and why. ``releases``: its owner lets go of the pod and replaces it."""

    labels: dict[str, str | None]
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
        reasons.append(f"its owner selects by {owner} too: it lets go of the pod")
    labels: dict[str, str | None] = dict.fromkeys(keys, CUT_VALUE)
    return LabelCut(labels, releases, tuple(reasons))


def _fewest(wanted: list[set[str]], owned: set[str]) -> tuple[str, ...]:
    """The smallest set of keys that meets every one of ``wanted``, free keys before owned ones."""
    keys = sorted(set().union(*wanted), key=lambda key: (key in owned, key))
    choices = (choice for size in range(len(keys) + 1) for choice in combinations(keys, size))
    covering = [choice for choice in choices if all(one.intersection(choice) for one in wanted)]
    return min(covering, key=lambda choice: (sum(key in owned for key in choice), len(choice), choice))


def tombstone(pod: Pod, token: str) -> dict[str, str]:
    """All of the pod's own labels flipped: no selector by equality, restored or rolled back, selects it again."""
    return dict.fromkeys(sorted(pod.labels), TOMBSTONE_VALUE) | {TOMBSTONE: token}


def isolation(pod: Pod, services: Iterable[Service], owner: Workload | None) -> LabelCut | None:
    """The one label by which ``owner`` lets go of ``pod`` and replaces it while every Service that selects it still
    does; None where no label does that (``not_isolated`` says why), or where it was done.

    Of a Deployment's pod it is pod-template-hash, the revision's own label: its ReplicaSet selects on it, and nothing
    else looks at it, so budgets, policies and monitors see the pod as before (measured: docs/decisions/0003).
    """
    if owner is None or owner.selector is None or owner.kind in _NAMED or not owner.selector.matches(pod.labels):
        return None
    known = tuple(services)
    for requirement in sorted(owner.selector.requirements, key=lambda one: (one.key != HASH_LABEL, one.key)):
        for value in _breaking(requirement):
            labels = changed(pod.labels, {requirement.key: value})
            is_let_go = not owner.selector.matches(labels)
            if is_let_go and all(one.selects(pod.namespace, labels) for one in _selecting(pod, known)):
                why = (
                    f"{owner} selects by {requirement}, and no Service that selects the pod looks at {requirement.key}"
                )
                return LabelCut({requirement.key: value}, True, (why,))
    return None


def severance(pod: Pod, services: Iterable[Service], owner: Workload | None) -> LabelCut | None:
    """The fewest labels by which ``owner`` lets go of ``pod`` and no Service selects it; None where it cannot."""
    known = tuple(services)
    apart = isolation(pod, (), owner)
    if apart is None or owner is None:
        return None
    found = cut(pod, known, owner.selector)
    return (
        found if found.releases else LabelCut({**found.labels, **apart.labels}, True, (*found.reasons, *apart.reasons))
    )


_NAMED = {
    "StatefulSet": "a pod of a StatefulSet is its name: no second one can be made while this one is there",
    "DaemonSet": "a DaemonSet would start a second pod on the same node",
    "Job": "a Job would do its work a second time",
}
"""Owners whose pods are not one like the other, and why none of them can be let go and replaced."""


def not_isolated(pod: Pod, services: Iterable[Service], owner: Workload | None) -> str:
    """Why ``isolation`` finds nothing, in a sentence; empty where it does find a label."""
    known = tuple(services)
    if isolation(pod, known, owner) is not None:
        return ""
    if owner is None:
        return f"nothing owns {pod}: there is nothing to isolate it from"
    if owner.kind in _NAMED:
        return _NAMED[owner.kind]
    if owner.selector is None or not owner.selector.matches(pod.labels):
        return f"{owner} has let go of it already"
    looking = [str(one) for one in _selecting(pod, known)]
    return f"{owner} selects by {owner.selector}, and every one of these labels is looked at by {', '.join(looking)}"


def changed(labels: Mapping[str, str], changes: Labels) -> dict[str, str]:
    """``labels`` once ``changes`` are set."""
    merged = {**labels, **changes}
    return {key: value for key, value in merged.items() if value is not None}


def _selecting(pod: Pod, services: tuple[Service, ...]) -> tuple[Service, ...]:
    return tuple(one for one in services if one.selects(pod.namespace, pod.labels))


def _breaking(requirement: Requirement) -> Iterator[str | None]:
    """Values that ``requirement`` is not met by, None for no such label; the one that tells people most first."""
    for value in (ISOLATED_VALUE, None, *requirement.values):
        if not requirement.matches(changed({}, {requirement.key: value})):
            yield value
