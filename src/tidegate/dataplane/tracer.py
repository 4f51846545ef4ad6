"""From a nat hook to every destination a packet may be sent to: the packet tracer.

First the whole space of packets is walked once; a test narrows it on the side that passes, not on the side that does
not. So every real path is among those found, and some that an earlier rule shadows. Then each frontend found is
walked again as the one packet it is, where tests have definite answers: what that walk still finds is reported.
Ranges of packets (a NodePort on any address) that rules split unevenly may be over-reported, never under-reported.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass, field

from tidegate.dataplane.rules import (
    ANY,
    DADDR,
    DPORT,
    PROTO,
    SERVED,
    Box,
    Chain,
    Dnat,
    Lookup,
    Maybe,
    Opaque,
    Region,
    Rule,
    Step,
    Table,
    Target,
    Test,
    Verdict,
    all_steps,
    intersect,
    point,
    the_point,
)

DEPTH_MAX = 64
"""nft allows 16 nested jumps, iptables no loops; whatever is deeper is not what a kernel accepted."""
STEPS_MAX = 4_000_000
"""Ten thousand Services of five endpoints take some 300,000."""
POINTS_MAX = 256
"""Of at most so many addresses and ports each is walked for itself, of more all as a whole."""

Trail = tuple[str, ...]
"""Names of the chains and maps passed, and the comments of the rules that led there, from the hook on."""
Ends = tuple[bool, bool]
"""May a packet go on to the next rule? May it leave the chain for its caller?"""


@dataclass(frozen=True, slots=True)
class Path:
    """Packets of ``box`` are sent to one of ``targets``, or ``problem`` says what nobody can tell, and where."""

    box: Box
    trail: Trail
    targets: tuple[Target, ...] = ()
    problem: str = ""
    where: str = ""


class TooMuch(Exception):
    """More paths than anybody's rules have: the tracer gives up, which reads as unreadable."""


def paths(table: Table, is_wanted: Callable[[Target], bool] | None = None) -> Iterator[Path]:
    """All paths of all hooks of ``table``. With ``is_wanted``: those of the frontends that have at least one path to
    a target it says yes to, or a problem. Raises ``TooMuch``.
    """
    matters = table.leading
    if is_wanted is not None and not table.is_indexed:
        matters = _leading(table, is_wanted)
    alike: list[list[tuple[Step, ...]]] = []
    for chain in list(table.chains.values()):
        if chain.hook and (matters is None or chain.name in matters):
            steps = [rule.steps for rule in chain.rules]
            if steps not in alike:  # kube-proxy's two hooks jump to the same chain
                alike.append(steps)
                yield from _paths(table, chain, matters)


def _paths(table: Table, base: Chain, matters: Container[str] | None) -> Iterator[Path]:
    wide, narrow = _Walk(table, matters), _Walk(table, chances=table.leading)
    seen: set[Box] = set()
    for found in wide.of(base, ANY):
        for box in _points(found.box):
            if box not in seen:
                seen.add(box)
                # What is found for a part of the box only is, as a whole, a box of its own in ``wide``.
                yield from (path for path in narrow.of(base, box) if path.box == box)


def _points(box: Box) -> Iterator[Box]:
    """A box of a few values as a box for each: so node addresses, or ``--dports 80,443``, stand in a rule.

    Protocols that no Service has are left out.
    """
    few = [
        _values(box[DADDR]),
        [point(number) for number in SERVED if intersect(box[PROTO], point(number)) != ()],
        _values(box[DPORT]),
    ]
    if len(few[0]) * len(few[2]) > POINTS_MAX:
        few[0], few[2] = [box[DADDR]], [box[DPORT]]
    return ((address, protocol, port) for address in few[0] for protocol in few[1] for port in few[2])


def _values(region: Region) -> list[Region]:
    if region is None or sum(high - low + 1 for low, high in region) > POINTS_MAX:
        return [region]
    return [((value, value),) for low, high in region for value in range(low, high + 1)]


@dataclass(frozen=True, slots=True)
class _At:
    """Where a packet is: the rule, how it came there, and how many chains deep."""

    rule: Rule
    trail: Trail
    depth: int


@dataclass(slots=True)
class _Walk:
    """Walks packets through ``table``; chains outside ``matters`` are passed over as if they gave packets back, and
    those outside ``chances`` where chance alone leads to them."""

    table: Table
    matters: Container[str] | None = None
    chances: Container[str] | None = None
    steps: int = 0
    found: list[Path] = field(default_factory=list)

    def of(self, base: Chain, box: Box) -> list[Path]:
        self.found = []
        self._chain(base, box, (base.name,))
        return self.found

    def _chain(self, chain: Chain, box: Box, trail: Trail, depth: int = 0) -> bool:
        """Whether a packet may come back from ``chain``."""
        comes_back = False
        for rule in chain.near(box, self.matters):
            goes_on, leaves = self._run(rule.steps, box, _At(rule, trail, depth))
            comes_back |= leaves
            if not goes_on:
                return comes_back
        return True

    def _run(self, steps: tuple[Step, ...], box: Box, at: _At) -> Ends:
        """The rest of a rule. What a step that is no test leaves undecided goes on, so nothing is missed."""
        self.steps += 1
        if self.steps > STEPS_MAX:
            raise TooMuch(f"more than {STEPS_MAX} steps, last at {at.rule.where}")
        goes_on = False
        for index, step in enumerate(steps):
            if isinstance(step, Test):
                inside = intersect(box[step.field], step.region)
                if inside == ():
                    return True, False
                if inside != box[step.field]:
                    goes_on, box = True, _with(box, step.field, inside)
            elif isinstance(step, Maybe):
                goes_on = True
            elif isinstance(step, Opaque):
                goes_on = True
                self.found.append(Path(box, at.trail, (), step.reason, at.rule.where))
            elif isinstance(step, Dnat):
                self.found.append(Path(box, _noted(at), step.targets, where=at.rule.where))
                return goes_on, False
            elif goes_on and isinstance(step, Verdict) and self._is_no_chance(step):
                return True, False
            else:
                on, leaves = (
                    self._look(step, steps[index + 1 :], box, at)
                    if isinstance(step, Lookup)
                    else self._verdict(step, box, at)
                )
                return goes_on or on, leaves
        return True, False

    def _look(self, lookup: Lookup, rest: tuple[Step, ...], box: Box, at: _At) -> Ends:
        hits, goes_on = _hits(lookup, box, self.matters)
        is_chance = not any(which is not None for which in lookup.fields)
        leaves = False
        if lookup.name:
            at = _At(at.rule, (*at.trail, lookup.name), at.depth)
        for inner, outcome in hits:
            if is_chance and self.chances is not None and _is_nothing(outcome, self.chances):
                kind = outcome[0].kind if isinstance(outcome[0], Verdict) else ""
                goes_on |= kind == "jump"
                leaves |= kind in ("goto", "return")
                continue
            on, out = self._run(outcome + rest, inner, at)
            goes_on |= on
            leaves |= out
        return goes_on, leaves

    def _is_no_chance(self, verdict: Verdict) -> bool:
        """Whether it leads, by chance alone, to what nobody asks about: kube-proxy of iptables has a chain to read for
        each endpoint."""
        return verdict.kind == "jump" and self.chances is not None and verdict.target not in self.chances

    def _verdict(self, verdict: Verdict, box: Box, at: _At) -> Ends:
        if verdict.kind not in ("jump", "goto"):
            return False, verdict.kind == "return"
        comes_back = self._enter(verdict.target, box, at)
        return (comes_back, False) if verdict.kind == "jump" else (False, comes_back)

    def _enter(self, name: str, box: Box, at: _At) -> bool:
        if self.matters is not None and name not in self.matters:
            return True
        chain = self.table.chains.get(name)
        if chain is None or at.depth >= DEPTH_MAX:
            problem = f"leads to chain {name}, " + ("too deep" if chain else "which the dump does not show")
            self.found.append(Path(box, at.trail, (), problem, at.rule.where))
            return True
        return self._chain(chain, box, (*_noted(at), name), at.depth + 1)


def _noted(at: _At) -> Trail:
    return (*at.trail, at.rule.note) if at.rule.note else at.trail


def _with(box: Box, which: int, region: Region) -> Box:
    return (
        region if which == DADDR else box[0],
        region if which == PROTO else box[1],
        region if which == DPORT else box[2],
    )


def _hits(lookup: Lookup, box: Box, matters: Container[str] | None) -> tuple[list[tuple[Box, tuple[Step, ...]]], bool]:
    """What the rows of ``lookup`` say about packets of ``box``, and whether some packet may be in none of them.

    Rows that lead to no chain that ``matters`` are as good as none.
    """
    hits: list[tuple[Box, tuple[Step, ...]]] = []
    values = tuple(the_point(box[which]) if which is not None else None for which in lookup.fields)
    if None not in values:
        outcome = lookup.exact.get(values)  # type: ignore[arg-type]
        if outcome is not None:
            return [(box, outcome)], False
    else:
        for key, outcome in lookup.exact.items():
            if matters is not None and _is_nothing(outcome, matters):
                continue
            fitted = _fitted(lookup.fields, tuple(((value, value),) for value in key), box)
            if fitted is not None:
                hits.append((fitted, outcome))
    for columns, outcome in lookup.ranged:
        fitted = _fitted(lookup.fields, columns, box)
        if fitted is not None:
            hits.append((fitted, outcome))
            if fitted == box and None not in lookup.fields:
                return hits, False
    return hits, not lookup.is_certain


def _is_nothing(outcome: tuple[Step, ...], matters: Container[str]) -> bool:
    """Whether a row that only leads to a chain leads to none that matters."""
    only = outcome[0] if len(outcome) == 1 else None
    return isinstance(only, Verdict) and only.target not in matters


def _fitted(fields: tuple[int | None, ...], columns: tuple[Region, ...], box: Box) -> Box | None:
    for which, column in zip(fields, columns, strict=True):
        if which is not None:
            inside = intersect(box[which], column)
            if inside == ():
                return None
            if inside != box[which]:
                box = _with(box, which, inside)
    return box


def _leading(table: Table, is_wanted: Callable[[Target], bool]) -> set[str]:
    """The chains from which a wanted target, or a problem, can be reached."""
    callers: dict[str, set[str]] = {}
    found: list[str] = []
    for chain in list(table.chains.values()):
        is_end = False
        for rule in chain.rules:
            for step in all_steps(rule.steps):
                if isinstance(step, Verdict) and step.target:
                    callers.setdefault(step.target, set()).add(chain.name)
                    is_end |= step.target not in table.chains
                elif isinstance(step, Dnat):
                    is_end |= any(map(is_wanted, step.targets))
                else:
                    is_end |= isinstance(step, Opaque)
        if is_end:
            found.append(chain.name)
    matters = set(found)
    missing = [name for name in callers if name not in table.chains]
    matters.update(missing)
    while found:
        for caller in callers.get(found.pop(), ()):
            if caller not in matters:
                matters.add(caller)
                found.append(caller)
    return matters
