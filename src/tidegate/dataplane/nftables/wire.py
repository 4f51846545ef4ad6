"""Rules of nftables as the kernel tells them (NFT_MSG_NEWRULE) -> steps of ``rules.py``.

The kernel keeps a rule as a small program: expressions load what a packet has into registers, and compare, look up,
jump or translate what is in them. It is run here with what is known of every packet: which bytes of a register are
its destination address, its protocol, its destination port. What has no meaning here is ``Opaque`` in its place.

Numbers: include/uapi/linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from struct import pack

from tidegate.dataplane.netlink import Malformed, attributes, listed, number, text
from tidegate.dataplane.nftables.alike import FOUR_BYTES, apart, expression_of
from tidegate.dataplane.nftables.registers import (
    NFPROTO,
    PADDING,
    Choice,
    Load,
    Piece,
    Registers,
    columns_of,
    is_certain,
    other,
    payload_pieces,
    prefix_of,
    size_of,
    whole_field,
    word_of,
)
from tidegate.dataplane.nftables.sets import (
    Column,
    Element,
    KernelSet,
    looked_up,
    nothing_more,
    region_in,
    thins,
    verdict,
    verdict_of,
)
from tidegate.dataplane.rules import (
    DADDR,
    NEVER,
    PROTO,
    TARGETS_MAX,
    Dnat,
    Lookup,
    Maybe,
    NotUnderstood,
    Opaque,
    Region,
    Step,
    Target,
    Test,
    Verdict,
    complement,
    largest,
)
from tidegate.dataplane.xtables import Extension, comment_of, match_steps, target_steps

_EQ, _NEQ, _LT, _LTE, _GT, _GTE = range(6)
_META_NFPROTO, _META_L4PROTO = 15, 16
_FAMILIES = {4: 2, 6: 10}
_NETMAP = 0x40
PATTERNS_MAX = 512
_PAYLOAD = b"payload\0"
_LOADED = _PAYLOAD + pack("=HHHH", 36, 2, 8, 1)
"""The beginning of one that loads: its four attributes, the register it loads into being the first."""


@dataclass(frozen=True, eq=False, slots=True)
class _Chosen:
    """The end of a rule that translates to what an anonymous map of its own says, by nothing that is followed:
    kube-proxy's of a Service. ``hole``: which constant is its name."""

    hole: int
    load: Load
    like: KernelSet
    target_of: Callable[[Element], Target]

    def steps_of(self, found: KernelSet) -> list[Step]:
        if _shape(found) != _shape(self.like):
            raise NotUnderstood("a map of another kind")
        return _translated(found, is_certain(self.load, found), self.target_of)


def _shape(found: KernelSet) -> tuple[int, int, int]:
    """All that a rule which looks ``found`` up depends on, but for the rows themselves."""
    return found.flags, found.key_bytes, _data_bytes(found)


def _data_bytes(found: KernelSet) -> int:
    return max((len(one.data) for one in found.elements if isinstance(one.data, bytes)), default=4)


def _translated(found: KernelSet, is_always: bool, target_of: Callable[[Element], Target]) -> list[Step]:
    targets = Dnat(tuple([target_of(element) for element in found.elements if not element.is_end]))
    return [targets] if is_always and not thins(found) else [Maybe(), targets]


@dataclass(frozen=True, eq=False, slots=True)
class _Pattern:
    """What rules come down to that are the same but for four-byte constants, the chain they end in and what they have
    counted; a node of 10,000 Services has 100,000 in three patterns. ``holes``: which constant is the destination
    address or the chain in which of the steps; nothing else depends on any."""

    steps: tuple[Step, ...]
    comment: str
    holes: tuple[tuple[int, int], ...]
    chosen: _Chosen | None = None

    def filled(self, values: list[bytes], sets: Callable[[str], KernelSet]) -> tuple[Step, ...]:
        """Raises ``NotUnderstood``: then the rule is taken by itself."""
        if self.chosen is not None:
            return (*self.steps, *self.chosen.steps_of(sets(values[self.chosen.hole].decode())))
        if not self.holes:
            return self.steps
        steps = list(self.steps)
        for hole, at in self.holes:
            steps[at] = _filled(steps[at], values[hole])
        return tuple(steps)


def _filled(step: Step | None, value: bytes) -> Step:
    """The same step with another constant."""
    if isinstance(step, Verdict):
        return Verdict(step.kind, value.decode(errors="surrogateescape"))
    number_ = int.from_bytes(value, "big")
    if isinstance(step, Dnat):
        return Dnat((Target(number_, number_, step.targets[0].port),))
    return Test(DADDR, ((number_, number_),))


@dataclass(eq=False, slots=True)
class Wiring:
    """Turns the rules of one table into steps, for packets of one family. ``sets`` finds a set of the table by its
    name, and raises ``NotUnderstood`` when it has none."""

    family: int
    sets: Callable[[str], KernelSet]
    rows: dict[tuple[str, tuple[Column, ...]], Lookup] = field(default_factory=dict)
    """The lookups of named sets that are made already."""

    _patterns: dict[tuple[bytes, ...], _Pattern | None] = field(default_factory=dict)

    def steps_of(self, expressions: bytes) -> tuple[tuple[Step, ...], str]:
        """The steps of one rule, in its order, and its comment in iptables' way."""
        run = _Run(self)
        try:
            given = [raw for _, raw in listed(expressions)]
        except Malformed as error:
            return (Opaque(f"not a rule of nftables: {error}"),), ""
        parts = [apart(raw) for raw in given]
        key = tuple([alike for alike, _ in parts])
        holes = [value for _, value in parts if value is not None]
        pattern = self._patterns.get(key)
        if pattern is not None:
            with suppress(NotUnderstood, UnicodeDecodeError):
                return pattern.filled(holes, self.sets), pattern.comment
        for raw, (_, value) in zip(given, parts, strict=True):
            run.take(raw, value is not None)
        steps = tuple([step for step in run.steps if step is not None])
        if key not in self._patterns:
            if len(self._patterns) >= PATTERNS_MAX:
                self._patterns.clear()
            self._patterns[key] = run.pattern(holes)
        return steps, run.comment

    def lookup(self, found: KernelSet, columns: tuple[Column, ...], is_map: bool) -> Lookup:
        known = None if found.is_anonymous else self.rows.get((found.name, columns))
        if known is None:
            known = looked_up(found, columns, verdict_of if is_map else nothing_more)
            if not found.is_anonymous:
                self.rows[found.name, columns] = known
        return known


@dataclass(eq=False, slots=True)
class _Run:
    """One rule, expression by expression."""

    wiring: Wiring
    steps: list[Step | None] = field(default_factory=list)
    comment: str = ""
    registers: Registers = field(default_factory=Registers)
    is_pattern: bool = True
    """Whether it is known of each constant met so far what depends on it."""
    hole: int = -1
    _count: int = 0
    _holes: list[tuple[int, int]] = field(default_factory=list)
    _choice: tuple[int, Load, Choice] | None = None
    _target_of: Callable[[Element], Target] | None = None

    def pattern(self, values: list[bytes]) -> _Pattern | None:
        """What every rule comes down to that differs from this one in its constants only."""
        if not self.is_pattern:
            return None
        if self._choice is not None:
            return self._pattern_of_choice(*self._choice)
        for hole, at in self._holes:
            step = self.steps[at] if at < len(self.steps) else None
            if step != _filled(step, values[hole]):
                return None
        return _Pattern(tuple([step for step in self.steps if step is not None]), self.comment, tuple(self._holes))

    def _pattern_of_choice(self, hole: int, load: Load, choice: Choice) -> _Pattern | None:
        """Only of a rule that ends with it, and has no other constant that matters."""
        if self._target_of is None or self._holes:
            return None
        ends = _translated(choice.found, choice.is_certain, self._target_of)
        before = [step for step in self.steps[: -len(ends)] if step is not None]
        if any(isinstance(step, Dnat | Opaque) for step in before):
            return None
        if self.steps[-len(ends) :] != ends or len(before) != len(self.steps) - len(ends) - 1:
            return None
        return _Pattern(tuple(before), self.comment, (), _Chosen(hole, load, choice.found, self._target_of))

    def take(self, raw: bytes, is_hole: bool) -> None:
        self.hole = -1
        if is_hole:
            self.hole = self._count
            self._count += 1
        name = "?"
        try:
            name, given = expression_of(raw)
            reader = _READERS.get(name)
            if reader is None:
                raise NotUnderstood("an expression nobody here knows")
            reader(self, given)
        except Malformed as error:
            self.steps.append(Opaque(f"{name}: malformed: {error}"))
        except NotUnderstood as error:
            self.steps.append(Opaque(f"{name}: {error}"))

    # --- tests

    def compare(self, given: dict[int, bytes]) -> None:
        value = _constant(given.get(3))
        load = self.registers.get(given, 1, len(value))
        if self.hole >= 0 and any(piece.field is not None for piece in load.pieces):
            if whole_field(load, self.wiring.family) == DADDR and load.prefix < 0 and number(given, 2) == _EQ:
                self._holes.append((self.hole, len(self.steps)))
            else:
                self.is_pattern = False
        self.steps += _compared(load, number(given, 2), value, self.wiring.family)

    def between(self, given: dict[int, bytes]) -> None:
        low, high = _constant(given.get(3)), _constant(given.get(4))
        load = self.registers.get(given, 1, len(low))
        which = whole_field(load, self.wiring.family)
        operator = number(given, 2)
        if which is None or load.prefix >= 0 or len(low) != len(high) or operator not in (_EQ, _NEQ):
            self.steps.append(Maybe())
            return
        ends = int.from_bytes(low, "big"), int.from_bytes(high, "big")
        region: Region = (ends,) if ends[0] <= ends[1] else NEVER
        highest = largest(which, self.wiring.family)
        self.steps.append(Test(which, region if operator == _EQ else complement(region, highest)))

    def mask(self, given: dict[int, bytes]) -> None:
        """A field less its low bits is still followed; all else that can be done to bits is not."""
        length = number(given, 3)
        load = self.registers.get(given, 1, min(length, 64))
        which = whole_field(load, self.wiring.family)
        made = other(length)
        if which is not None and number(given, 6, 0) == 0 and not any(_constant(given.get(5))):
            bits = prefix_of(_constant(given.get(4)))
            if bits is not None and load.prefix < 0:
                made = Load(load.pieces, load.size, prefix=bits)
        self.registers.put(given, 2, made)

    def look_up(self, given: dict[int, bytes]) -> None:
        is_pattern, self.is_pattern = self.is_pattern, False
        found = self.wiring.sets(text(given, 1))
        flags = number(given, 5, 0)
        if flags & ~1 or not 0 < found.key_bytes <= 64:
            raise NotUnderstood(f"in @{found.name}, with flags {flags}")
        load = self.registers.get(given, 2, found.key_bytes)
        columns = columns_of(load, self.wiring.family)
        if 3 not in given:
            self._be_in(found, load, columns, is_inverted=bool(flags))
        elif number(given, 3) == 0:
            lookup = self.wiring.lookup(found, columns, is_map=True)
            if is_certain(load, found):
                lookup = Lookup(lookup.name, lookup.fields, lookup.exact, lookup.ranged, is_certain=True)
            self.steps.append(lookup)
        else:
            if found.is_dynamic:
                raise NotUnderstood(f"packets change @{found.name}: a dump tells only what was")
            data = _data_bytes(found)
            choice = Choice(found, columns, is_certain(load, found), len(self.steps))
            if self.hole >= 0 and self._choice is None and not any(column.field is not None for column in columns):
                self.is_pattern, self._choice = is_pattern, (self.hole, load, choice)
            self.steps.append(Maybe())
            self.registers.put(given, 3, Load((Piece(None, 0, data),), data, choice=choice))

    def _be_in(self, found: KernelSet, load: Load, columns: tuple[Column, ...], is_inverted: bool) -> None:
        is_followed = any(column.field is not None for column in columns)
        if found.is_dynamic or not is_followed or (is_inverted and (len(columns) > 1 or thins(found))):
            self.steps.append(Maybe())
        elif len(columns) == 1 and columns[0].field is not None:
            region = region_in(found, columns[0])
            if thins(found):
                self.steps.append(Maybe())
            highest = largest(columns[0].field, self.wiring.family)
            self.steps.append(Test(columns[0].field, complement(region, highest) if is_inverted else region))
        else:
            self.steps.append(self.wiring.lookup(found, columns, is_map=False))

    # --- ends

    def immediate(self, given: dict[int, bytes]) -> None:
        data = attributes(given.get(2, b""))
        if number(given, 1) == 0:
            ends = verdict(data.get(2, b""))
            if self.hole >= 0:
                self._holes.append((self.hole, len(self.steps)))
            self.steps += ends
            return
        value = data.get(1)
        if value is None or not 0 < len(value) <= 64:
            raise Malformed("no value")
        self.registers.put(given, 1, Load((Piece(None, 0, len(value)),), len(value), value=value, hole=self.hole))

    def nat(self, given: dict[int, bytes]) -> None:
        if number(given, 1) == 0:
            self.steps.append(Verdict("accept"))
            return
        if number(given, 1) != 1 or number(given, 7, 0) & _NETMAP:
            raise NotUnderstood("neither source nor destination, or one to one")
        if number(given, 2) != _FAMILIES[self.wiring.family]:
            self.steps.append(Test(PROTO, NEVER))
            return
        addresses, ports = self._ends(given, 3, 4), self._ends(given, 5, 6)
        if addresses and self.wiring.family == 4 and addresses[0] is addresses[1] and addresses[0][0].hole >= 0:
            self._holes.append((addresses[0][0].hole, len(self.steps)))
        else:
            self.is_pattern &= all(load.hole < 0 for load, _ in addresses)
        self.is_pattern &= all(load.hole < 0 for load, _ in ports)
        choices = [load.choice for load, _ in (*addresses, *ports) if load.choice is not None]
        if not choices:
            self.steps.append(Dnat((self._target(addresses, ports, None),)))
            return
        choice = choices[0]
        if any(one is not choice for one in choices):
            raise NotUnderstood("to what two maps say")
        self._translate(choice, lambda element: self._target(addresses, ports, element))

    def _translate(self, choice: Choice, target_of: Callable[[Element], Target]) -> None:
        self.steps[choice.at] = None
        if any(column.field is not None for column in choice.columns):
            self.steps.append(looked_up(choice.found, choice.columns, lambda element: (Dnat((target_of(element),)),)))
            return
        self.steps += _translated(choice.found, choice.is_certain, target_of)
        self._target_of = target_of

    def _ends(self, given: dict[int, bytes], first: int, last: int) -> list[tuple[Load, int]]:
        """What is in the two registers of a range, none for none."""
        if first not in given:
            return []
        registers = [number(given, first), number(given, last) if last in given else number(given, first)]
        found = [self.registers.words.get(word_of(register)) for register in registers]
        if None in found:
            raise NotUnderstood("to what is in no register")
        return [one for one in found if one is not None]

    def _target(
        self, addresses: list[tuple[Load, int]], ports: list[tuple[Load, int]], element: Element | None
    ) -> Target:
        size = 4 if self.wiring.family == 4 else 16
        port: int | None = None
        if ports:
            first, last = _both(ports, 2, element)
            port = first if first == last else 0
            if not first:
                raise NotUnderstood("to port 0")
        if not addresses:
            return Target(None, None, port)
        low, high = _both(addresses, size, element)
        if not 0 <= high - low < TARGETS_MAX:
            raise NotUnderstood(f"to {high - low + 1} addresses")
        return Target(low, high, port)

    def redirect(self, given: dict[int, bytes]) -> None:
        ports = self._ends(given, 1, 2)
        choices = [load.choice for load, _ in ports if load.choice is not None]
        self.is_pattern &= all(load.hole < 0 for load, _ in ports)

        def target_of(element: Element | None) -> Target:
            return Target(None, None, self._target([], ports, element).port, is_here=True)

        if choices:
            self._translate(choices[0], target_of)
        else:
            self.steps.append(Dnat((target_of(None),)))

    # --- the rest

    def payload(self, given: dict[int, bytes]) -> None:
        if 5 in given:  # written, see ``rewrites``
            return
        length = number(given, 4)
        if not 0 < length <= 64:
            raise Malformed(f"{length} bytes")
        pieces = payload_pieces(self.wiring.family, number(given, 2), min(number(given, 3), 4096), length)
        self.registers.put(given, 1, Load(pieces, length))

    def meta(self, given: dict[int, bytes]) -> None:
        if 3 in given:
            return
        key = number(given, 2)
        which = {_META_L4PROTO: PROTO, _META_NFPROTO: NFPROTO}.get(key)
        self.registers.put(
            given, 1, Load((Piece(which, 0, 1),), 1) if which is not None else other(16 if key in _NAMES else 4)
        )

    def conntrack(self, given: dict[int, bytes]) -> None:
        if 4 not in given:
            self.registers.put(given, 1, other(16))

    def random(self, given: dict[int, bytes]) -> None:
        first = number(given, 4, 0)
        self.registers.put(given, 1, Load((Piece(None, 0, 4),), 4, numbers=(first, first + number(given, 2))))

    def byte_order(self, given: dict[int, bytes]) -> None:
        self.registers.put(given, 2, other(min(64, number(given, 4))))

    def passing(self, given: dict[int, bytes]) -> None:
        del given

    def thinning(self, given: dict[int, bytes]) -> None:
        del given
        self.steps.append(Maybe())

    def reject(self, given: dict[int, bytes]) -> None:
        del given
        self.steps.append(Verdict("drop"))

    def masquerade(self, given: dict[int, bytes]) -> None:
        del given
        self.steps.append(Verdict("accept"))

    def object(self, given: dict[int, bytes]) -> None:
        kind = number(given, 1, 0)
        if kind not in (1, 2, 3, 4, 5, 7, 8, 9):
            raise NotUnderstood(f"an object of type {kind}")
        if kind in (2, 4, 5):
            self.steps.append(Maybe())

    def match(self, given: dict[int, bytes]) -> None:
        extension = self._extension(given)
        self.comment = comment_of(extension) or self.comment
        self.steps += match_steps(extension)

    def target(self, given: dict[int, bytes]) -> None:
        self.steps += target_steps(self._extension(given))

    def _extension(self, given: dict[int, bytes]) -> Extension:
        return Extension(text(given, 1), number(given, 2), given.get(3, b""), self.wiring.family)


_NAMES = (6, 7, 17, 18, 26, 27, 34)
"""Keys of meta that are as long as the name of an interface."""


def _loading(kind: int) -> Callable[[_Run, dict[int, bytes]], None]:
    """An expression that loads what is not followed into the register of its attribute ``kind``."""

    def load(run: _Run, given: dict[int, bytes]) -> None:
        if kind in given:
            run.registers.put(given, kind, other(16))

    return load


_READERS: dict[str, Callable[[_Run, dict[int, bytes]], None]] = {
    "payload": _Run.payload, "meta": _Run.meta, "ct": _Run.conntrack, "numgen": _Run.random, "cmp": _Run.compare,
    "range": _Run.between, "bitwise": _Run.mask, "byteorder": _Run.byte_order, "lookup": _Run.look_up,
    "immediate": _Run.immediate, "nat": _Run.nat, "redir": _Run.redirect, "masq": _Run.masquerade,
    "reject": _Run.reject, "objref": _Run.object, "match": _Run.match, "target": _Run.target,
    "counter": _Run.passing, "log": _Run.passing, "notrack": _Run.passing, "last": _Run.passing,
    "flow_offload": _Run.passing, "dynset": _Run.thinning, "limit": _Run.thinning, "quota": _Run.thinning,
    "connlimit": _Run.thinning, "fib": _loading(1), "hash": _loading(2), "rt": _loading(1), "socket": _loading(2),
    "osf": _loading(1), "exthdr": _loading(1), "xfrm": _loading(1),
}  # fmt: skip


def _constant(nested: bytes | None) -> bytes:
    if nested is not None and len(nested) == 8 and nested[:4] == FOUR_BYTES:
        return nested[4:]
    value = attributes(nested or b"").get(1)
    if not value or len(value) > 64:
        raise Malformed("no value")
    return value


def _compared(load: Load, operator: int, value: bytes, family: int) -> list[Step]:
    """What a comparison asks of the followed fields; ``Maybe`` for the others."""
    if load.value is not None or operator > _GTE:
        raise NotUnderstood("a comparison of constants")
    steps: list[Step] = []
    at = 0
    regions = []
    for piece in load.pieces:
        part = value[at : at + piece.width]
        at += piece.width
        if piece.field == NFPROTO and operator in (_EQ, _NEQ) and len(load.pieces) == 1:
            return [] if (part[0] == _FAMILIES[family]) == (operator == _EQ) else [Test(PROTO, NEVER)]
        if piece.field == PADDING:
            continue
        if piece.field is None or piece.field < 0 or piece.at:
            steps.append(Maybe())
            continue
        size = size_of(piece.field, family)
        low = int.from_bytes(part, "big") << 8 * (size - piece.width)
        free = 8 * size - (load.prefix if load.prefix >= 0 else 8 * piece.width)
        if low & ((1 << free) - 1):
            regions.append((piece.field, NEVER, free))
        else:
            regions.append((piece.field, ((low, low + (1 << free) - 1),), free))
    if operator == _EQ:
        return [*(Test(which, region) for which, region, _ in regions), *steps]
    if len(regions) != 1 or steps:
        return [Maybe()]
    [(which, region, free)] = regions
    highest = largest(which, family)
    if operator == _NEQ:
        return [Test(which, complement(region, highest))]
    if free or not region:
        return [Maybe()]
    value_ = region[0][0]
    low, high = {
        _LT: (0, value_ - 1), _LTE: (0, value_), _GT: (value_ + 1, highest), _GTE: (value_, highest),
    }[operator]  # fmt: skip
    return [Test(which, ((low, high),) if low <= high else NEVER)]


def _both(ends: list[tuple[Load, int]], size: int, element: Element | None) -> tuple[int, int]:
    first, last = ends
    low = _in_register(*first, size, element)
    return low, low if last is first else _in_register(*last, size, element)


def _in_register(load: Load, index: int, size: int, element: Element | None) -> int:
    """The constant, or what ``element`` gives, in a register."""
    data = load.value if load.choice is None else element.data if element is not None else None
    if not isinstance(data, bytes):
        raise NotUnderstood("to what is no constant")
    part = data[4 * index : 4 * index + size]
    if len(part) != size:
        raise NotUnderstood(f"to {len(part)} bytes where {size} are needed")
    return int.from_bytes(part, "big")


def rewrites(expressions: bytes, family: int) -> bool:
    """Whether a rule writes another destination into packets, outside of all tracking: other fields than a source,
    or the first bytes of the network header up to its protocol."""
    if expressions.count(_PAYLOAD) == expressions.count(_LOADED):
        return False
    for _, raw in listed(expressions):
        name, given = expression_of(raw)
        if name != "payload" or 5 not in given:
            continue
        base, at, length = number(given, 2), number(given, 3), number(given, 4)
        end = at + length
        address = 16 if family == 4 else 24
        if not ((base == 1 and end <= address) or (base == 2 and end <= 2)):
            return True
    return False
