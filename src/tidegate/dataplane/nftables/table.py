"""One table of nftables, followed: what its chains lead to, and which of them have to be read again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from itertools import groupby
from operator import attrgetter

from tidegate.dataplane.facts import Unreadable
from tidegate.dataplane.frontends import Asking, is_fence
from tidegate.dataplane.netlink import Malformed
from tidegate.dataplane.nftables.alike import lasting_digest
from tidegate.dataplane.nftables.ends import Ends, Named, SeenRules, id_of
from tidegate.dataplane.nftables.kept import RULES_MAX, KeptChain, Unplaced
from tidegate.dataplane.nftables.rule import RawRule, expressions_of, rule_of
from tidegate.dataplane.nftables.sets import KernelSet
from tidegate.dataplane.nftables.source import FAMILIES, NEW_RULE, Changed, Source
from tidegate.dataplane.nftables.spool import Spool
from tidegate.dataplane.nftables.store import SetStore
from tidegate.dataplane.nftables.wire import Wiring, rewrites
from tidegate.dataplane.rules import Chain, Dnat, Opaque, Rule, Step, Table, Target, Verdict, all_steps

CHAINS_KEPT_MAX = 2048
"""2 KiB each."""
LONG_MIN = 256
"""A chain of so many rules is kept in its order (``kept.py``)."""
HEAR_EVERY = 256
_PROBLEM, _ANYWHERE, _FENCE = 1, 2, 3


class _Chains(dict[str, Chain]):
    """The chains of a table for packets of one family, read when somebody asks for one."""

    def __init__(self, read: Callable[[str], Chain]) -> None:
        super().__init__()
        self._read = read

    def get(self, name: str, default: object = None) -> Chain:
        del default
        return self[name]

    def __missing__(self, name: str) -> Chain:
        found = self._read(name)
        self.keep(found)
        return found

    def keep(self, chain: Chain) -> None:
        self.make_room(1)
        self[chain.name] = chain

    def make_room(self, count: int) -> None:
        """Not more than ``CHAINS_KEPT_MAX`` with so many more: then all are forgotten but those that translate."""
        if len(self) + count > CHAINS_KEPT_MAX:
            for one in [one for one, kept in self.items() if not kept.hook]:
                del self[one]


@dataclass(eq=False)
class TableMirror:
    """One table. ``bases``: its chains that translate, with their hooks; ``dirty``: those that changed since read."""

    source: Source
    family: int
    name: str
    bases: dict[str, str] = field(default_factory=dict)
    dirty: dict[str, None] = field(default_factory=dict)
    rewriting: dict[str, tuple[int, ...]] = field(default_factory=dict)
    sets: SetStore = field(init=False)
    _ends: Ends = field(default_factory=Ends)
    _seen: SeenRules = field(default_factory=SeenRules)
    _users: dict[str, dict[str, None]] = field(default_factory=dict)
    _wirings: dict[int, Wiring] = field(default_factory=dict)
    _chains: dict[int, _Chains] = field(default_factory=dict)
    _kept: dict[str, KeptChain] = field(default_factory=dict)
    """Long chains, whose rules are followed one by one."""
    _stirred: dict[str, None] = field(default_factory=dict)
    _reading: str = ""

    def __post_init__(self) -> None:
        self.sets = SetStore(partial(self.source.elements, self.family, self.name))
        for family in FAMILIES[self.family][1]:
            self._wirings[family] = Wiring(family, self._set)
            self._chains[family] = _Chains(partial(self._chain, family))

    @property
    def where(self) -> str:
        return f"{FAMILIES[self.family][0]} {self.name}"

    # --- what commits touch

    def touch_chain(self, name: str) -> None:
        self.dirty[name] = None
        self._forget_chain(name)
        if name in self._kept:
            self._kept[name].stop()

    def _forget_chain(self, name: str) -> None:
        for chains in self._chains.values():
            chains.pop(name, None)

    def hear_rule(self, chain: str, kind: int, flags: int, told: tuple[bytes, int]) -> None:
        """An NFT_MSG_NEWRULE or NFT_MSG_DELRULE: its body, and where it goes on behind the chain's name, as far as that
        is known. A rule that was seen in this chain before leads nowhere new, and without one that went the others lead
        where they led: the chain is read when a question comes by. Raises ``Malformed``."""
        if chain in self.dirty:
            return
        if (kept := self.kept(chain)) is not None:
            try:
                return kept.hear(kind == NEW_RULE, flags, *told)
            except Unplaced:
                return self.touch_chain(chain)
        if chain in self.rewriting:
            return self.touch_chain(chain)
        if kind == NEW_RULE:
            digest = lasting_digest(expressions_of(*told))
            if not digest or not self._seen.has(chain, digest):
                return self.touch_chain(chain)
        self._forget_chain(chain)

    def kept(self, chain: str) -> KeptChain | None:
        """A chain whose rules are followed one by one, to be told of one."""
        kept = self._kept.get(chain)
        if kept is None or not kept.is_current:
            return None
        self._stirred[chain] = None
        self._forget_chain(chain)
        return kept

    def end_commit(self) -> None:
        """All is told of a commit."""
        for chain in self._stirred:
            self._forget_chain(chain)
            if chain in self._kept:
                self._kept[chain].end_commit()
        self._stirred.clear()

    def remake_chain(self, name: str) -> None:
        """An NFT_MSG_NEWCHAIN of one that was there before, or is new: what is in it is told rule by rule."""
        kept = self._kept.get(name)
        if kept is None or not kept.is_current:
            self.lose_chain(name)

    def lose_chain(self, name: str) -> None:
        """An NFT_MSG_DELCHAIN: what is left leads where it led."""
        if name in self.rewriting or name in self._kept:
            self.touch_chain(name)
        else:
            self._forget_chain(name)

    def touch_set(self, name: str) -> None:
        """Its elements changed, or it is gone: so did every chain that looks it up."""
        for wiring in self._wirings.values():
            for key in [key for key in wiring.rows if key[0] == name]:
                del wiring.rows[key]
        for chain in self._users.pop(name, {}):
            self.touch_chain(chain)

    # --- what is read

    def index(self, chain: str, is_asked_next: bool = False) -> None:
        """Read ``chain``, and keep what it leads to; itself too, where a question about it is to be expected."""
        rules = self._raw(chain)
        if not self._keep(chain, rules, is_current=True):
            self._take(chain, rules, is_asked_next)
        self.dirty.pop(chain, None)

    def _take(self, chain: str, rules: list[RawRule], is_asked_next: bool = False) -> None:
        self.rewriting.pop(chain, None)
        if rules and not self._wirings:
            self._look_for_rewrites(chain, rules, 4)
        for family, wiring in self._wirings.items():
            self._look_for_rewrites(chain, rules, family)
            made = Chain(chain, hook=self.bases.get(chain, ""))
            for raw in rules:
                if (rule := self._learnt(raw, wiring, self._place(chain, raw.handle))) is not None:
                    made.rules.append(rule)
            if is_asked_next:
                self._chains[family].keep(made)
        for digest in filter(None, [lasting_digest(raw.expressions) for raw in rules]):
            self._seen.add(chain, digest)

    def _keep(self, chain: str, rules: list[RawRule], is_current: bool) -> bool:
        """Whether ``chain`` is one of those whose rules are followed one by one; ``is_current``: from now on."""
        kept = self._kept.pop(chain, None)
        if len(rules) < LONG_MIN or not self._wirings or chain in self.rewriting:
            return False
        if sum(len(one.order) for one in self._kept.values()) + len(rules) > RULES_MAX:
            self._kept.clear()
        if kept is None:
            kept = KeptChain(partial(self._lasting, chain, self._place(chain)), tuple(self._wirings))
        with suppress(Unplaced):
            if kept.read(rules, is_current):
                self._kept[chain] = kept
                return True
        return False

    def _lasting(self, chain: str, where: str, family: int, raw: RawRule) -> Rule | None:
        """A rule of a chain that is kept. Raises ``Unplaced``."""
        if b"payload" in raw.expressions and _rewrites(raw, family):
            raise Unplaced(f"{chain} rewrites packets")
        return self._learnt(raw, self._wirings[family], where)

    def _learnt(self, raw: RawRule, wiring: Wiring, where: str) -> Rule | None:
        """What a rule does, None for nothing; what it leads to is kept."""
        rule = _understood(raw, wiring, where)
        caller = id_of(raw.chain)
        for end in _ends_of(rule.steps, wiring.family):
            self._ends.add(end, caller)
        return None if rule.is_inert else rule

    def _place(self, chain: str, handle: int = 0) -> str:
        return f"table {self.where}, chain {chain}" + (f", handle {handle}" if handle else "")

    def index_all(self, between: Callable[[], None]) -> None:
        """Read every chain, all in one dump. Raises ``Changed`` when that was torn. What commits touched since it was
        taken down stays so."""
        spooled = Spool(self.source.every_rule(self.family, self.name))
        self._fetch_numbered(between)
        for count, (chain, bodies) in enumerate(groupby(map(rule_of, spooled), key=attrgetter("chain"))):
            self._reading = chain
            try:
                rules = list(bodies)
                if self._keep(chain, rules, is_current=False):
                    self.touch_chain(chain)  # what was told since is not in it
                else:
                    self._take(chain, rules)
            except Changed:
                self.touch_chain(chain)
            if not count % HEAR_EVERY:
                between()

    def _fetch_numbered(self, between: Callable[[], None]) -> None:
        wanted = list(self.sets.numbered())
        for at in range(0, len(wanted), HEAR_EVERY):
            asked = dict(wanted[at : at + HEAR_EVERY])
            for name, raw in self.source.numbered(self.family, self.name, list(asked.items())):
                self.sets.supply(name, asked[name], raw)
            between()

    def make_room(self) -> None:
        """For what is to be read again: what of it is kept must not drive out the rest of it."""
        for chains in self._chains.values():
            chains.make_room(len(self.dirty))

    def index_or_touch(self, chain: str) -> None:
        """The same; what is gone already is left to be read again."""
        try:
            self.index(chain)
        except Changed:
            self.touch_chain(chain)

    def _look_for_rewrites(self, chain: str, rules: list[RawRule], family: int) -> None:
        found = tuple(rule.handle for rule in rules if b"payload" in rule.expressions and _rewrites(rule, family))
        if found:
            self.rewriting[chain] = found

    def _raw(self, chain: str) -> list[RawRule]:
        self._reading = chain
        return [rule_of(body) for body in self.source.rules(self.family, self.name, chain)]

    def _set(self, name: str) -> KernelSet:
        found = self.sets.find(name)
        if not found.is_anonymous:
            self._users.setdefault(name, {})[self._reading] = None
        return found

    def _chain(self, family: int, name: str) -> Chain:
        """``name`` as the tracer walks it."""
        hook = self.bases.get(name, "")
        kept = self._kept.get(name)
        if kept is None or not kept.is_current:
            rules = self._raw(name)
            if not self._keep(name, rules, is_current=True):
                return self._made(name, rules, self._wirings[family])
            kept = self._kept[name]
        return kept.chain(family, name, hook)

    def _made(self, name: str, rules: list[RawRule], wiring: Wiring) -> Chain:
        """The rules of a chain that do something, and led where they lead before."""
        made = Chain(name, hook=self.bases.get(name, ""))
        for raw in rules:
            rule = _understood(raw, wiring, self._place(raw.chain, raw.handle))
            if not rule.is_inert:
                made.rules.append(rule)
        return made

    # --- what is asked

    def traced(self, family: int, asking: Asking) -> Table:
        """The table in the tracer's shape, for one question."""
        chains = self._chains[family]
        for name in self.bases:
            chains[name]
        table = Table(self.where, family, chains, is_indexed=True)
        if asking.endpoints is not None:
            given = dict.fromkeys(ip_address(one.address) for one in asking.endpoints)
            addresses = [one.packed for one in given if one.version == family]
            wanted = [_PROBLEM, _ANYWHERE, _FENCE, *map(id_of, addresses)]
            found = self._ends.leading_to(wanted)
            table.leading = None if found is None else Named(found)
        return table

    def untracked(self) -> list[Unreadable]:
        """Rules that write another destination into packets, tracked by nobody."""
        return [
            Unreadable("rewrites packets without tracking them", f"table {self.where}, chain {chain}, handle {handle}")
            for chain, handles in self.rewriting.items()
            for handle in handles
        ]


def _understood(raw: RawRule, wiring: Wiring, where: str) -> Rule:
    steps, comment = wiring.steps_of(raw.expressions)
    return Rule(where, steps, raw.comment or comment)


def _rewrites(rule: RawRule, family: int) -> bool:
    try:
        return rewrites(rule.expressions, family)
    except Malformed:
        return True


def _ends_of(steps: tuple[Step, ...], family: int) -> Iterator[int]:
    """What a rule may lead to."""
    for step in all_steps(steps):
        if isinstance(step, Verdict):
            if step.target:
                yield id_of(step.target)
        elif isinstance(step, Dnat):
            for target in step.targets:
                yield from _ends_at(target, family)
        elif isinstance(step, Opaque):
            yield _PROBLEM


def _ends_at(target: Target, family: int) -> Iterator[int]:
    if target.low is None or target.high is None:
        yield _ANYWHERE
        return
    if is_fence(target, family):
        yield _FENCE
    for address in range(target.low, target.high + 1):
        yield id_of(address.to_bytes(4 if family == 4 else 16, "big"))
