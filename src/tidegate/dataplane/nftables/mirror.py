"""The rules of nftables, followed through every commit: only what concerns a question is read again for it.

A node of 10,000 Services has 110,000 rules; to read them all takes seconds. So once every chain is read, and what it
can lead to is kept (``Ends``: not the rules). After that the kernel tells which chains and sets a commit touched, and
these alone are read again. A question reads the chains on the way to what is asked about, and no others.

What is kept may lead too far (a chain that was emptied still has its place in it), never too short: every chain that
is read adds to it, and a message that was missed or not understood empties the mirror.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from ipaddress import ip_address
from itertools import groupby
from operator import attrgetter
from struct import Struct
from typing import Protocol

from tidegate.dataplane.facts import Facts, Unreadable
from tidegate.dataplane.frontends import Asking, facts_of, is_fence
from tidegate.dataplane.netlink import (
    HEADER_BYTES,
    Malformed,
    Message,
    attributes,
    leading_texts,
    messages,
    number,
    text,
)
from tidegate.dataplane.nftables.alike import lasting_digest
from tidegate.dataplane.nftables.ends import Ends, Named, SeenRules, id_of
from tidegate.dataplane.nftables.rule import RawRule, expressions_of, rule_of
from tidegate.dataplane.nftables.sets import KernelSet
from tidegate.dataplane.nftables.spool import Spool
from tidegate.dataplane.nftables.store import SetStore
from tidegate.dataplane.nftables.wire import Wiring, rewrites
from tidegate.dataplane.rules import (
    Chain,
    Dnat,
    Opaque,
    Rule,
    Step,
    Table,
    Target,
    Verdict,
    all_steps,
)

SUBSYSTEM = 10 << 8
NEW_TABLE, DEL_TABLE, NEW_CHAIN, DEL_CHAIN, NEW_RULE, DEL_RULE = 0, 2, 3, 5, 6, 8
NEW_SET, DEL_SET, NEW_ELEMENT, DEL_ELEMENT, NEW_GENERATION = 9, 11, 12, 14, 15
_LED_BY_NAMES = frozenset([NEW_RULE, DEL_RULE, NEW_SET, DEL_SET, NEW_ELEMENT, DEL_ELEMENT])
"""Their first two attributes are the table's name and the chain's or set's."""
_HEAD = Struct("=IHHI")
_HARMLESS = (18, 20, 22, 24)
"""Objects and flow tables: nothing that is routed depends on them."""
FAMILIES = {
    1: ("inet", (4, 6)),
    2: ("ip", (4,)),
    10: ("ip6", (6,)),
    3: ("arp", ()),
    5: ("netdev", ()),
    7: ("bridge", ()),
}
_HOOKS = {0: "prerouting", 3: "output"}
_TRANSLATING = b"nat\0"
_FLAGS, _OWNED, _PERSISTS = 2, 2, 4
_MADE = 0x600
"""NLM_F_CREATE, NLM_F_EXCL: of a chain that was made, or asked for where it was. Without them it got another name."""
CHAINS_KEPT_MAX = 2048
"""2 KiB each."""
ASKED_NEXT_MAX = 768
"""Of so many chains that a commit touched each is kept as it was read: the next question is about them."""
LONG_MIN = 256
"""So many rules of a chain are known again when they are read again."""
HEAR_EVERY = 256
WHOLE_TRIES = 2
_PROBLEM, _ANYWHERE, _FENCE = 1, 2, 3


class Changed(Exception):
    """What was to be read is not there any more: the rules changed meanwhile."""


class Source(Protocol):
    """Reads the kernel. Every method raises ``OSError``, ``Malformed``, and ``Changed``."""

    def tables(self) -> list[bytes]: ...

    def chains(self) -> Iterator[bytes]: ...

    def rules(self, family: int, table: str, chain: str) -> Iterator[bytes]: ...

    def every_rule(self, family: int, table: str) -> Iterator[bytes]: ...

    def sets(self) -> Iterator[bytes]: ...

    def elements(self, family: int, table: str, name: str) -> bytes: ...

    def numbered(self, family: int, table: str, wanted: list[tuple[str, int]]) -> Iterator[tuple[str, bytes]]: ...


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
        """Not more than ``CHAINS_KEPT_MAX`` with so many more: then all are forgotten but those that translate, and the
        longest, which every question comes by and which takes long to read."""
        if len(self) + count > CHAINS_KEPT_MAX:
            longest = max(self.values(), key=lambda kept: len(kept.rules), default=None)
            for one in [one for one, kept in self.items() if not kept.hook and kept is not longest]:
                del self[one]


@dataclass(eq=False)
class _TableMirror:
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
    _known: dict[tuple[str, int], dict[bytes, tuple[tuple[Step, ...], str]]] = field(default_factory=dict)
    _long: dict[str, None] = field(default_factory=dict)
    """Chains all of whose rules are read again with each: sooner done than to look at what is told of each."""
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

    def _forget_chain(self, name: str) -> None:
        for chains in self._chains.values():
            chains.pop(name, None)

    def hear_rule(self, chain: str, body: bytes, at: int = 0) -> None:
        """An NFT_MSG_NEWRULE; ``at``: where it goes on behind the chain's name. One that was seen in this chain before
        leads nowhere new: the chain is read when a question comes by. Raises ``Malformed``."""
        if chain in self.dirty:
            return
        if chain not in self.rewriting and chain not in self._long:
            digest = lasting_digest(expressions_of(body, at))
            if digest and self._seen.has(chain, digest):
                return self._forget_chain(chain)
        self.touch_chain(chain)

    def lose_rule(self, chain: str) -> None:
        """An NFT_MSG_DELRULE: what is left leads where it led."""
        if chain in self.rewriting or chain in self._long:
            self.touch_chain(chain)
        else:
            self._forget_chain(chain)

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
        self._take(chain, self._raw(chain), is_asked_next)
        self.dirty.pop(chain, None)

    def _take(self, chain: str, rules: list[RawRule], is_asked_next: bool = False) -> None:
        caller = id_of(chain)
        self.rewriting.pop(chain, None)
        if rules and not self._wirings:
            self._look_for_rewrites(chain, rules, 4)
        digests = [lasting_digest(raw.expressions) for raw in rules]
        for family, wiring in self._wirings.items():
            self._look_for_rewrites(chain, rules, family)
            made = Chain(chain, hook=self.bases.get(chain, ""))
            for raw, (steps, comment), is_known in self._understood(chain, rules, digests, wiring):
                rule = self._rule(raw, steps, comment)
                if not rule.is_inert:
                    made.rules.append(rule)
                for end in () if is_known else _ends_of(steps, family):
                    self._ends.add(end, caller)
            if is_asked_next:
                self._chains[family].keep(made)
        if chain not in self._long:
            for digest in filter(None, digests):
                self._seen.add(chain, digest)

    def _understood(
        self, chain: str, rules: list[RawRule], digests: list[bytes], wiring: Wiring
    ) -> Iterator[tuple[RawRule, tuple[tuple[Step, ...], str], bool]]:
        """Each rule, its steps and its comment, and whether it has stood in this chain before: then what it leads to
        is kept already. kube-proxy writes its chain of all Services anew for each change of one."""
        is_long = len(rules) >= LONG_MIN
        key = chain, wiring.family
        known, kept = self._known.pop(key, {}), {}
        for raw, digest in zip(rules, digests, strict=True):
            name = digest if is_long else b""
            found = known.get(name)
            steps = wiring.steps_of(raw.expressions) if found is None else found
            if name:
                kept[name] = steps
            yield raw, steps, found is not None
        self._long.pop(chain, None)
        if kept:
            self._known[key] = kept
            self._long[chain] = None

    def index_all(self, between: Callable[[], None]) -> None:
        """Read every chain, all in one dump. Raises ``Changed`` when that was torn. What commits touched since it was
        taken down stays so."""
        spooled = Spool(self.source.every_rule(self.family, self.name))
        self._fetch_numbered(between)
        for count, (chain, bodies) in enumerate(groupby(map(rule_of, spooled), key=attrgetter("chain"))):
            self._reading = chain
            try:
                self._take(chain, list(bodies))
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
        return self._made(name, self._raw(name), self._wirings[family])

    def _made(self, name: str, rules: list[RawRule], wiring: Wiring) -> Chain:
        """The rules of a chain that do something."""
        made = Chain(name, hook=self.bases.get(name, ""))
        for raw in rules:
            rule = self._rule(raw, *wiring.steps_of(raw.expressions))
            if not rule.is_inert:
                made.rules.append(rule)
        return made

    def _rule(self, raw: RawRule, steps: tuple[Step, ...], comment: str) -> Rule:
        return Rule(f"table {self.where}, chain {raw.chain}, handle {raw.handle}", steps, raw.comment or comment)

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


def _split(names: bytearray) -> Iterator[str]:
    """Names with a nought behind each: 60,000 strings at once would stay in the process for good."""
    at = 0
    while (end := names.find(0, at)) >= 0:
        yield names[at:end].decode(errors="surrogateescape")
        at = end + 1


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


@dataclass(eq=False)
class Mirror:
    """All tables but ``passed_over`` (family, name): their routes are ours to know."""

    source: Source
    passed_over: frozenset[tuple[int, str]] = frozenset()
    is_whole: bool = False
    tells_renames: bool = True
    """Whether the kernel tells with which flags something was made (Linux 5.15)."""
    generation: int = 0
    """The last commit of which every message was heard."""
    _tables: dict[tuple[int, str], _TableMirror] = field(default_factory=dict)
    _are_bases_known: bool = False
    _has_owned: bool = False
    """Whether some table goes with the process that made it: without a commit, and without a word (NFT_TABLE_F_OWNER,
    nf_tables_api.c, ``nft_rcv_nl_event``)."""

    def begin(self, generation: int, between: Callable[[], None] = lambda: None) -> None:
        """Read everything; what is heard from now on is read again. ``between`` is called now and then, to hear."""
        self.is_whole = False
        self.generation = generation
        self._tables = {key: _TableMirror(self.source, *key) for key in self._listed_tables()}
        self._read_sets()
        listed = {table: bytearray() for table in self._tables.values()}
        self._read_bases(listed)
        for table, names in listed.items():
            self._index(table, names, between)
        self.is_whole = True

    @staticmethod
    def _index(table: _TableMirror, names: bytearray, between: Callable[[], None]) -> None:
        """At once, and chain by chain where commits keep tearing that."""
        for _ in range(WHOLE_TRIES):
            with suppress(Changed):
                return table.index_all(between)
        for count, name in enumerate(_split(names)):
            table.index_or_touch(name)
            if not count % HEAR_EVERY:
                between()

    def _listed_tables(self) -> list[tuple[int, str]]:
        found = []
        self._has_owned = False
        for body in self.source.tables():
            given = attributes(body[4:])
            key = body[0], text(given, 1)
            if key in self.passed_over:
                continue
            if body[0] not in FAMILIES:
                raise Malformed(f"a table of family {body[0]}")
            self._has_owned |= number(given, _FLAGS, 0) & (_OWNED | _PERSISTS) == _OWNED
            found.append(key)
        return found

    def _read_sets(self) -> None:
        for body in self.source.sets():
            table = self._tables.get((body[0], text(attributes(body[4:]), 1)))
            if table is not None:
                table.sets.add(body, is_new=False)

    def _read_bases(self, listed: dict[_TableMirror, bytearray] | None = None) -> None:
        """All chains, into ``listed``; those that translate are noted as such."""
        bases: dict[_TableMirror, dict[str, str]] = {table: {} for table in self._tables.values()}
        for body in self.source.chains():
            given = attributes(body[4:])
            table = self._tables.get((body[0], text(given, 1)))
            if table is None:
                continue
            name = text(given, 3)
            if listed is not None:
                listed[table] += name.encode(errors="surrogateescape") + b"\0"
            hook = attributes(given[4]) if 4 in given else {}
            if given.get(7) == _TRANSLATING and (which := _HOOKS.get(number(hook, 1))) is not None:
                bases[table][name] = which
        for table, own in bases.items():
            for name in {**table.bases, **own}:
                if table.bases.get(name) != own.get(name):
                    table.touch_chain(name)
            table.bases = own
        self._are_bases_known = True

    def hear_all(self, data: bytes) -> None:
        """The messages of one datagram (``hear``). Of rules of one chain that follow each other only what makes a
        difference: kube-proxy of iptables takes 10,000 away and makes them again for each change of one Service."""
        place, whole, before = 0, len(data), b""
        table, chain = None, ""
        while whole - place >= HEADER_BYTES:
            length, kind, flags, sequence = _HEAD.unpack_from(data, place)
            if not HEADER_BYTES <= length <= whole - place:
                break
            body = data[place + HEADER_BYTES : place + length]
            is_new = kind == SUBSYSTEM | NEW_RULE
            if not is_new and kind != SUBSYSTEM | DEL_RULE:
                before = b""
                self.hear(Message(kind, flags, sequence, body))
            elif not before or not body.startswith(before):
                self.hear(Message(kind, flags, sequence, body))
                led = leading_texts(body)
                before = b"" if led is None else body[: led[2]]
                if led is not None:
                    table, chain = self._tables.get((body[0], led[0])), led[1]
            elif is_new and table is not None:
                table.hear_rule(chain, body, len(before))
            place += length + 3 & ~3
        messages(data[place:])

    def hear(self, message: Message) -> None:
        """What the kernel says of a commit. Raises ``Malformed`` for what may mean anything: begin again."""
        kind = message.kind - SUBSYSTEM
        if kind == NEW_GENERATION:
            generation = number(attributes(message.body[4:]), 1)
            if generation > self.generation + 1:
                raise Malformed(f"generation {generation} follows {self.generation}")
            self.generation = max(generation, self.generation)
            return
        if kind in _HARMLESS:
            return
        body = message.body
        led = leading_texts(body) if kind in _LED_BY_NAMES else None
        given = attributes(body[4:]) if led is None else {}
        key = body[0] if body else 0, text(given, 1) if led is None else led[0]
        if key in self.passed_over:
            return
        table = self._tables.get(key)
        if table is None or kind in (NEW_TABLE, DEL_TABLE):
            raise Malformed(f"table {key[1]} came or went")
        if kind == NEW_RULE:
            table.hear_rule(*((text(given, 2), body) if led is None else (led[1], body, led[2])))
        elif kind == DEL_RULE:
            table.lose_rule(text(given, 2) if led is None else led[1])
        elif kind in (NEW_CHAIN, DEL_CHAIN):
            name = text(given, 3)
            if kind == NEW_CHAIN and self.tells_renames and 4 not in given and not message.flags & _MADE:
                raise Malformed(f"a chain is called {name} since: what jumps there is not told")
            if self.tells_renames and 4 not in given:
                table.lose_rule(name)  # what is in it is told rule by rule
            else:
                table.touch_chain(name)
            if 4 in given or name in table.bases:
                self._are_bases_known = False
        elif kind in (NEW_SET, DEL_SET, NEW_ELEMENT, DEL_ELEMENT):
            self._hear_of_set(table, kind, body, led)
        else:
            raise Malformed(f"a message of type {kind}")

    @staticmethod
    def _hear_of_set(table: _TableMirror, kind: int, body: bytes, led: tuple[str, str, int] | None) -> None:
        name = text(attributes(body[4:]), 2) if led is None else led[1]
        if not table.sets.is_anonymous(name):
            table.touch_set(name)
        if kind == NEW_SET:
            table.sets.add(body, is_new=True)
        elif kind == DEL_SET:
            table.sets.end(body)
        elif led is None or not table.sets.hear_plain(name, body, led[2]):
            table.sets.hear(body)

    @property
    def touched(self) -> int:
        """How many chains have to be read again."""
        return sum(len(table.dirty) for table in self._tables.values())

    def refresh(self) -> None:
        """Read what was touched again. Raises ``Changed`` where more was meanwhile, and ``Malformed`` where a table is
        gone unheard."""
        if self._has_owned and self._listed_tables() != list(self._tables):
            raise Malformed("a table went with its owner")
        if not self._are_bases_known:
            self._read_bases()
        is_asked_next = self.touched <= ASKED_NEXT_MAX
        for table in self._tables.values():
            if is_asked_next:
                table.make_room()
            for chain in list(table.dirty):
                table.index(chain, is_asked_next)

    @property
    def served(self) -> frozenset[int]:
        """The address families for which something translates."""
        return frozenset(one for table in self._tables.values() if table.bases for one in FAMILIES[table.family][1])

    @property
    def kinds(self) -> list[str]:
        """Whose rules translate."""
        translating = [table for table in self._tables.values() if table.bases]
        is_theirs = [one.name == "nat" and not {"PREROUTING", "OUTPUT"}.isdisjoint(one.bases) for one in translating]
        found = ["nftables"] if not all(is_theirs) else []
        return [*found, *(["iptables-nft"] if any(is_theirs) else [])]

    def facts(self, asking: Asking) -> Facts:
        """What leads to what is asked about. Raises ``Changed``, ``OSError``, ``Malformed``."""
        unreadable: list[Unreadable] = []
        traced: list[Table] = []
        for table in self._tables.values():
            unreadable += table.untracked()
            traced += [table.traced(family, asking) for family in FAMILIES[table.family][1] if table.bases]
        return facts_of("", "nft", traced, asking, tuple(unreadable))
