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
from struct import Struct

from tidegate.dataplane.facts import Facts, Unreadable
from tidegate.dataplane.frontends import Asking, facts_of
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
from tidegate.dataplane.nftables.kept import KeptChain, Unplaced
from tidegate.dataplane.nftables.source import (
    DEL_CHAIN,
    DEL_ELEMENT,
    DEL_RULE,
    DEL_SET,
    DEL_TABLE,
    FAMILIES,
    NEW_CHAIN,
    NEW_ELEMENT,
    NEW_GENERATION,
    NEW_RULE,
    NEW_SET,
    NEW_TABLE,
    SUBSYSTEM,
    Changed,
    Source,
)
from tidegate.dataplane.nftables.table import HEAR_EVERY, TableMirror
from tidegate.dataplane.rules import Table

_LED_BY_NAMES = frozenset([NEW_RULE, DEL_RULE, NEW_SET, DEL_SET, NEW_ELEMENT, DEL_ELEMENT])
"""Their first two attributes are the table's name and the chain's or set's."""
_NEW_RULE = SUBSYSTEM | NEW_RULE
_OF_RULES = frozenset([_NEW_RULE, SUBSYSTEM | DEL_RULE])
_HEAD = Struct("=IHHI")
_HARMLESS = (18, 20, 22, 24)
"""Objects and flow tables: nothing that is routed depends on them."""
_HOOKS = {0: "prerouting", 3: "output"}
_TRANSLATING = b"nat\0"
_FLAGS, _OWNED, _PERSISTS = 2, 2, 4
_MADE = 0x600
"""NLM_F_CREATE, NLM_F_EXCL: of a chain that was made, or asked for where it was. Without them it got another name."""
ASKED_NEXT_MAX = 768
"""Of so many chains that a commit touched each is kept as it was read: the next question is about them."""
WHOLE_TRIES = 2
_Run = tuple[bytes, TableMirror | None, str]
_NO_RUN: _Run = (b"", None, "")


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
    _tables: dict[tuple[int, str], TableMirror] = field(default_factory=dict)
    _are_bases_known: bool = False
    _has_owned: bool = False
    """Whether some table goes with the process that made it: without a commit, and without a word (NFT_TABLE_F_OWNER,
    nf_tables_api.c, ``nft_rcv_nl_event``)."""
    _run: _Run = _NO_RUN

    def begin(self, generation: int, between: Callable[[], None] = lambda: None) -> None:
        """Read everything; what is heard from now on is read again. ``between`` is called now and then, to hear."""
        self.is_whole = False
        self.generation = generation
        self._run = _NO_RUN
        self._tables = {key: TableMirror(self.source, *key) for key in self._listed_tables()}
        self._read_sets()
        listed = {table: bytearray() for table in self._tables.values()}
        self._read_bases(listed)
        for table, names in listed.items():
            self._index(table, names, between)
        self.is_whole = True

    @staticmethod
    def _index(table: TableMirror, names: bytearray, between: Callable[[], None]) -> None:
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

    def _read_bases(self, listed: dict[TableMirror, bytearray] | None = None) -> None:
        """All chains, into ``listed``; those that translate are noted as such."""
        bases: dict[TableMirror, dict[str, str]] = {table: {} for table in self._tables.values()}
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
        """The messages of one datagram (``hear``). Where the rules of one chain follow each other, as 10,000 that
        kube-proxy of iptables takes away and makes again, table and chain are looked for once."""
        place, whole = 0, len(data)
        before, table, chain = self._run
        kept: KeptChain | None = None
        while whole - place >= HEADER_BYTES:
            length, kind, flags, sequence = _HEAD.unpack_from(data, place)
            if not HEADER_BYTES <= length <= whole - place:
                break
            body = data[place + HEADER_BYTES : place + length]
            place += length + 3 & ~3
            if kind not in _OF_RULES:
                self.hear(Message(kind, flags, sequence, body))
                kept = None  # it may be another by now
            elif not before or not body.startswith(before):
                self.hear(Message(kind, flags, sequence, body))
                before, table, chain = self._run = self._run_of(body)
                kept = None
            elif table is not None:
                if kept is None or not kept.is_current:
                    kept = table.kept(chain)
                if kept is None:
                    table.hear_rule(chain, kind - SUBSYSTEM, flags, (body, len(before)))
                    continue
                try:
                    kept.hear(kind == _NEW_RULE, flags, body, len(before))
                except Unplaced:
                    table.touch_chain(chain)
        messages(data[place:])

    def _run_of(self, body: bytes) -> _Run:
        """With what the messages about the rules of one chain begin, and whose they are."""
        led = leading_texts(body)
        return _NO_RUN if led is None else (body[: led[2]], self._tables.get((body[0], led[0])), led[1])

    def hear(self, message: Message) -> None:
        """What the kernel says of a commit. Raises ``Malformed`` for what may mean anything: begin again."""
        kind = message.kind - SUBSYSTEM
        if kind == NEW_GENERATION:
            generation = number(attributes(message.body[4:]), 1)
            if generation > self.generation + 1:
                raise Malformed(f"generation {generation} follows {self.generation}")
            self.generation = max(generation, self.generation)
            for one in self._tables.values():
                one.end_commit()
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
        if kind in (NEW_RULE, DEL_RULE):
            chain, at = (text(given, 2), 0) if led is None else (led[1], led[2])
            table.hear_rule(chain, kind, message.flags, (body, at))
        elif kind in (NEW_CHAIN, DEL_CHAIN):
            name = text(given, 3)
            if kind == NEW_CHAIN and self.tells_renames and 4 not in given and not message.flags & _MADE:
                raise Malformed(f"a chain is called {name} since: what jumps there is not told")
            if not self.tells_renames or 4 in given:
                table.touch_chain(name)
            elif kind == NEW_CHAIN:
                table.remake_chain(name)
            else:
                table.lose_chain(name)
            if 4 in given or name in table.bases:
                self._are_bases_known = False
        elif kind in (NEW_SET, DEL_SET, NEW_ELEMENT, DEL_ELEMENT):
            self._hear_of_set(table, kind, body, led)
        else:
            raise Malformed(f"a message of type {kind}")

    @staticmethod
    def _hear_of_set(table: TableMirror, kind: int, body: bytes, led: tuple[str, str, int] | None) -> None:
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


def _split(names: bytearray) -> Iterator[str]:
    """Names with a nought behind each: 60,000 strings at once would stay in the process for good."""
    at = 0
    while (end := names.find(0, at)) >= 0:
        yield names[at:end].decode(errors="surrogateescape")
        at = end + 1
