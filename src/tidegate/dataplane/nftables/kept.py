"""A long chain, kept in the kernel's order by what it tells of each rule that comes or goes.

kube-proxy of iptables takes KUBE-SERVICES away and writes it anew for each change of one Service: 10,000 rules. To read
them again costs 120 ms, to hear of them 40. What a rule means is kept by its digest, whichever handle it has by now.

The kernel tells where a rule came to stand less exactly than one would wish (net/netfilter/nf_tables_api.c,
``nf_tables_rule_notify``; tried on Linux 6.18): the handle of the rule before it in the list as it is when that is
told, where it is neither the first nor the last there, and else nothing. That list has every rule the commit adds, told
or not, and no more those whose end was told. So with a handle its place is certain. Without one and without
NLM_F_APPEND it was put in front of something: it is the first. With NLM_F_APPEND it was put behind something and is the
last, but for two cases: a rule that replaces the first one (it has that one's handle, and its end is told before), and
one put behind a rule that the same commit took away, which the kernel allows. So once the end of a rule was told in a
commit, it is the last only where another one is known to be the first. Whatever is not certain is ``Unplaced``: the
chain is read again.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field

from tidegate.dataplane.netlink import attributes, last_nested, number
from tidegate.dataplane.nftables.alike import lasting_digest
from tidegate.dataplane.nftables.ends import Named, id_of
from tidegate.dataplane.nftables.rule import (
    EXPRESSIONS,
    HANDLE,
    HANDLE_HERE,
    POSITION,
    POSITION_HERE,
    RawRule,
    rule_of,
)
from tidegate.dataplane.rules import (
    DADDR,
    DPORT,
    Box,
    Chain,
    Maybe,
    Opaque,
    Rule,
    Step,
    Test,
    Verdict,
    all_steps,
    only_value,
    the_point,
)

APPENDED = 0x800
"""NLM_F_APPEND."""
INSERTED_MAX = 64
"""Rules of one commit put between others: each costs as much as the chain is long."""
RULES_MAX = 1 << 16
"""Of one chain."""
_FORGOTTEN_MIN = 1024

Learn = Callable[[int, RawRule], Rule | None]
"""What a rule does with packets of a family, noting what it leads to; None for nothing. Raises ``Unplaced`` for one
whose meaning does not last."""


class Unplaced(Exception):
    """The chain is not known any more: it has to be read again."""


def key_of(rule: RawRule) -> bytes:
    """Rules of one key mean the same for good; empty for one that looks something up."""
    digest = lasting_digest(rule.expressions)
    return digest + rule.comment.encode(errors="surrogateescape") if digest else b""


@dataclass(eq=False, slots=True)
class _Meanings:
    """What rules do with packets of one family, and by what to find them. ``jumps``: those that jump somewhere and do
    nothing else, by the id of where; ``others``: the rest."""

    rules: dict[bytes, Rule | None] = field(default_factory=dict)
    problems: dict[bytes, None] = field(default_factory=dict)
    by_address: dict[int, tuple[Rule, ...]] = field(default_factory=dict)
    by_port: dict[int, tuple[Rule, ...]] = field(default_factory=dict)
    anywhere: list[Rule] = field(default_factory=list)
    jumps: dict[int, tuple[Rule, ...]] = field(default_factory=dict)
    others: list[Rule] = field(default_factory=list)

    def add(self, key: bytes, rule: Rule | None) -> None:
        self.rules[key] = rule
        if rule is None:
            return
        if any(isinstance(step, Opaque) for step in all_steps(rule.steps)):
            self.problems[key] = None
        address, port = only_value(rule.steps, DADDR), only_value(rule.steps, DPORT)
        if address is not None:
            self.by_address[address] = (*self.by_address.get(address, ()), rule)
        elif port is not None:
            self.by_port[port] = (*self.by_port.get(port, ()), rule)
        else:
            self.anywhere.append(rule)
        if to := _only_jump(rule.steps):
            self.jumps[id_of(to)] = (*self.jumps.get(id_of(to), ()), rule)
        else:
            self.others.append(rule)


def _only_jump(steps: tuple[Step, ...]) -> str:
    """Where a rule jumps that does nothing else."""
    *before, last = steps
    if not isinstance(last, Verdict) or last.kind != "jump":
        return ""
    return last.target if all(isinstance(step, Test | Maybe) for step in before) else ""


@dataclass(eq=False, slots=True)
class _Found(Chain):
    """The chain as it is; ``places``: where each rule stands."""

    meanings: _Meanings = field(default_factory=_Meanings)
    places: dict[Rule, int] = field(default_factory=dict)

    def near(self, box: Box, matters: Container[str] | None = None) -> Iterable[Rule]:
        address, port = the_point(box[DADDR]), the_point(box[DPORT])
        by = self.meanings
        if address is not None and port is not None:
            found = [*by.by_address.get(address, ()), *by.by_port.get(port, ()), *by.anywhere]
        elif isinstance(matters, Named):
            found = [rule for to in matters.among(by.jumps) for rule in by.jumps[to]] + by.others
        else:
            return self.rules
        at = sorted(place for rule in found if (place := self.places.get(rule)) is not None)
        return [self.rules[place] for place in at]


@dataclass(eq=False, slots=True)
class KeptChain:
    """``order``: the handle and the key of each rule, in the kernel's order; of moment where ``is_current``."""

    learn: Learn
    families: tuple[int, ...]
    is_current: bool = False
    order: dict[int, bytes] = field(default_factory=dict)
    _meanings: dict[int, _Meanings] = field(default_factory=dict)
    _last: int = 0
    _lost: bool = False
    _bare: int = 0
    _is_first_known: bool = False
    _inserted: int = 0
    """Of the commit that is being told: whether a rule's end was, which rule since then had no place, whether it is
    the first, and how many were put between others."""

    def __post_init__(self) -> None:
        self._meanings = {family: _Meanings() for family in self.families}

    def read(self, rules: list[RawRule], is_current: bool) -> bool:
        """Take all rules as they were read; with ``is_current`` of what the kernel tells from now on nothing may be
        missed. False where some rule cannot be kept. Raises ``Unplaced``."""
        self.stop()
        for rule in rules:
            if not (key := key_of(rule)):
                return False
            self._know(key, rule)
            self.order[rule.handle] = key
        self._forget_more()
        if is_current:
            self.is_current = True
        else:
            self.order = {}
        self._last = 0
        self.end_commit()
        return True

    def stop(self) -> None:
        """What is told of it is of no moment until it is read again."""
        self.is_current = False
        self.order = {}

    def end_commit(self) -> None:
        self._lost, self._bare, self._is_first_known, self._inserted = False, 0, False, 0

    def hear(self, is_new: bool, flags: int, body: bytes, at: int) -> None:
        """An NFT_MSG_NEWRULE or NFT_MSG_DELRULE; ``at``: where it goes on behind the chain's name. Raises ``Unplaced``
        and ``Malformed``."""
        handle, position, expressions = 0, 0, None
        if body[at : at + 4] == HANDLE_HERE:
            at += 12
            handle = int.from_bytes(body[at - 8 : at], "big")
            if not is_new:
                return self._lose(handle)
            if body[at : at + 4] == POSITION_HERE:
                at += 12
                position = int.from_bytes(body[at - 8 : at], "big")
            expressions = last_nested(body, at, EXPRESSIONS)
        if expressions is not None:
            key = lasting_digest(expressions)
        else:
            given = attributes(body[4:])
            handle, position = number(given, HANDLE), number(given, POSITION, 0)
            if not is_new:
                return self._lose(handle)
            key = key_of(rule_of(body))
        if key not in self._meanings[self.families[0]].rules:
            if not key:
                raise Unplaced("it looks something up")
            self._know(key, rule_of(body))
        order = self.order
        if position and position == self._last and handle not in order and len(order) < RULES_MAX:
            if position == self._bare:
                self._is_first_known = True
            order[handle] = key
            self._last = handle
        else:
            self._place(handle, position, flags, key)

    def _lose(self, handle: int) -> None:
        if self.order.pop(handle, None) is None:
            raise Unplaced(f"handle {handle} went, and was not there")
        if handle == self._last:
            self._last = 0
        self._lost, self._bare, self._is_first_known = True, 0, False

    def _place(self, handle: int, position: int, flags: int, key: bytes) -> None:
        order = self.order
        if handle in order or len(order) >= RULES_MAX:
            raise Unplaced(f"handle {handle} came, and was there")
        self._last = self._last or next(reversed(order), 0)
        if position and position not in order:
            raise Unplaced(f"handle {handle} came behind {position}, which is not there")
        if position and position == self._bare:
            self._is_first_known = True
        if position and position != self._last:
            self._insert(handle, key, list(order).index(position) + 1)
        elif order and not position and not flags & APPENDED:
            if self._lost:
                raise Unplaced(f"handle {handle} came in front of something that may have gone")
            self._insert(handle, key, 0)
        elif order and not position and self._lost and not self._is_first_known:
            raise Unplaced(f"handle {handle} is the first or the last")
        else:
            if not order:
                self._bare = handle
            order[handle] = key
            self._last = handle

    def _insert(self, handle: int, key: bytes, at: int) -> None:
        self._inserted += 1
        if self._inserted > INSERTED_MAX:
            raise Unplaced("sooner read again")
        rows = list(self.order.items())
        rows.insert(at, (handle, key))
        self.order = dict(rows)

    def _know(self, key: bytes, rule: RawRule) -> None:
        if key not in self._meanings[self.families[0]].rules:
            learnt = [self.learn(family, rule) for family in self.families]
            for family, one in zip(self.families, learnt, strict=True):
                self._meanings[family].add(key, one)

    def _forget_more(self) -> None:
        """What rules meant that are there no more."""
        keys = dict.fromkeys(self.order.values())
        for family, known in self._meanings.items():
            if len(known.rules) > 2 * len(keys) + _FORGOTTEN_MIN:
                left = self._meanings[family] = _Meanings()
                for key in keys:
                    left.add(key, known.rules[key])

    def chain(self, family: int, name: str, hook: str) -> Chain:
        """As the tracer walks it: the rules that do something."""
        self._forget_more()
        meanings = self._meanings[family]
        if meanings.problems and any(key in meanings.problems for key in self.order.values()):
            return Chain(name, self._each(meanings), hook)
        rules = [rule for rule in map(meanings.rules.__getitem__, self.order.values()) if rule is not None]
        places = {rule: at for at, rule in enumerate(rules)}
        if len(places) < len(rules):  # a rule that stands twice
            return Chain(name, rules, hook)
        return _Found(name, rules, hook, meanings=meanings, places=places)

    def _each(self, meanings: _Meanings) -> list[Rule]:
        """Those with something not understood say where they are."""
        found = []
        for handle, key in self.order.items():
            rule = meanings.rules[key]
            if rule is not None:
                found.append(Rule(f"{rule.where}, handle {handle}", rule.steps, rule.note))
        return found
