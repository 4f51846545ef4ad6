"""What a kube-proxy table shall hold beside its fixed part, and the nft commands from one such state to another. Pure.

After pkg/proxy/nftables/proxier.go of Kubernetes v1.36: chains of Services are emptied in the transaction in which
they leave, and deleted later (kernels before 6.2 still see a reference from a map element deleted a moment ago).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

TABLE = "kube-proxy"


@dataclass(frozen=True, slots=True)
class Element:
    """Of a set (no verdict) or of a verdict map."""

    verdict: str = ""
    comment: str = ""


@dataclass(slots=True)
class Ruleset:
    """Chains of Services by name, with their rules; elements by set or map and key; affinity sets with their seconds.

    Rules and keys are nft's own text. All dictionaries keep one order, so that equal entries give equal commands.
    """

    chains: dict[str, list[str]] = field(default_factory=dict)
    elements: dict[str, dict[str, Element]] = field(default_factory=dict)
    affinity: dict[str, int] = field(default_factory=dict)

    def chain(self, name: str) -> list[str]:
        """The rules of a chain, which then exists."""
        return self.chains.setdefault(name, [])

    def put(self, container: str, key: str, verdict: str = "", comment: str = "") -> None:
        """An element; of two that claim a key the later stays, as in kube-proxy."""
        self.elements.setdefault(container, {})[key] = Element(verdict, comment)

    def add(self, part: Ruleset) -> None:
        """Everything of ``part``, whose rules are then shared and no longer changed."""
        self.chains.update(part.chains)
        self.affinity.update(part.affinity)
        for container, elements in part.elements.items():
            self.elements.setdefault(container, {}).update(elements)


def rule(text: str, comment: str = "") -> str:
    """A rule with its comment, as ``add rule`` takes it."""
    return f'{text} comment "{comment}"' if comment else text


def commands(old: Ruleset, new: Ruleset) -> Iterator[str]:
    """From ``old`` to ``new``: chains first, since elements point to them, and emptied ones last."""
    changed = [name for name in new.chains if old.chains.get(name) != new.chains[name]]
    for name in changed:
        yield f"add chain ip {TABLE} {name}"
        yield f"flush chain ip {TABLE} {name}"
    gone = [name for name in old.chains if name not in new.chains]
    yield from _affinity_commands(old, new)
    for name in changed:
        for one in new.chains[name]:
            yield f"add rule ip {TABLE} {name} {one}"
    for container in sorted(old.elements.keys() | new.elements.keys()):
        yield from _element_commands(container, old.elements.get(container, {}), new.elements.get(container, {}))
    yield from emptied(gone)
    for name in old.affinity:
        if name not in new.affinity:
            yield f"delete set ip {TABLE} {name}"


def emptied(chains: Iterable[str]) -> Iterator[str]:
    """What makes chains that nobody may go through any more harmless at once."""
    for name in chains:
        yield f"flush chain ip {TABLE} {name}"


def deleted(chains: Iterable[str]) -> Iterator[str]:
    """What removes emptied chains for good."""
    for name in chains:
        yield f"delete chain ip {TABLE} {name}"


def _affinity_commands(old: Ruleset, new: Ruleset) -> Iterator[str]:
    """Sets that stay keep their clients; one added again takes the new time over (measured on Linux 6.18)."""
    for name, seconds in new.affinity.items():
        if old.affinity.get(name) != seconds:
            spec = f"type ipv4_addr ; flags dynamic,timeout ; timeout {seconds}s ;"
            yield f"add set ip {TABLE} {name} {{ {spec} }}"


def _element_commands(container: str, old: Mapping[str, Element], new: Mapping[str, Element]) -> Iterator[str]:
    for key, element in old.items():
        if new.get(key) != element:
            yield f"delete element ip {TABLE} {container} {{ {_spell(key, element)} }}"
    for key, element in new.items():
        if old.get(key) != element:
            yield f"add element ip {TABLE} {container} {{ {_spell(key, element)} }}"


def _spell(key: str, element: Element) -> str:
    comment = f' comment "{element.comment}"' if element.comment else ""
    verdict = f" : {element.verdict}" if element.verdict else ""
    return key + comment + verdict
