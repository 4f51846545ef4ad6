"""Bytes nobody's kernel wrote: they end in ``Malformed``, ``NotUnderstood`` or an Opaque step, and never in a crash."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.dataplane import ctnetlink, rules
from tidegate.dataplane.netlink import Malformed, attribute, messages, request
from tidegate.dataplane.nftables.alike import lasting_digest
from tidegate.dataplane.nftables.mirror import Mirror
from tidegate.dataplane.nftables.rule import rule_of
from tidegate.dataplane.nftables.sets import KernelSet, listed_elements, set_of
from tidegate.dataplane.nftables.wire import Wiring, rewrites
from tidegate.dataplane.rules import DADDR, Dnat, NotUnderstood, Opaque, Target, point


def number(kind, value):
    return attribute(kind, value.to_bytes(4, "big"))


def expression(name, *given):
    return attribute(1, attribute(1, name.encode() + b"\0") + attribute(2, b"".join(given)))


def value(kind, data):
    return attribute(kind, attribute(1, data))


LOAD = expression("payload", number(1, 1), number(2, 1), number(3, 16), number(4, 4))
COMPARE = expression("cmp", number(1, 1), number(2, 0), value(3, bytes((10, 96, 0, 1))))
TO = expression("immediate", number(1, 1), value(2, bytes((10, 244, 0, 1))))
NAT = expression("nat", number(1, 1), number(2, 2), number(3, 1), number(4, 1))
LOOKUP = expression("lookup", attribute(1, b"m\0"), number(2, 1), number(3, 1))


def jump(code, chain):
    """As the kernel lays it out."""
    verdict = attribute(1, (code & 0xFFFFFFFF).to_bytes(4, "big")) + attribute(2, chain + b"\0")
    return expression("immediate", number(1, 0), attribute(2, attribute(2, verdict)))


def counter(count):
    return expression("counter", *(attribute(kind, count.to_bytes(8, "big")) for kind in (1, 2)))


RULES = [
    LOAD + COMPARE + TO + NAT,
    LOAD + COMPARE + counter(5) + jump(-3, b"KUBE-SVC-A"),
    LOAD + LOOKUP + NAT,
    LOAD + COMPARE,
    expression("numgen", number(1, 1), number(2, 5)),
]
ROW = attribute(1, value(1, bytes((10, 96, 0, 1))) + value(2, bytes((10, 244, 0, 1))))
KNOWN = KernelSet("m", 8, 4, tuple(listed_elements(ROW)))


def steps(expressions, found=KNOWN):
    return Wiring(4, lambda name: found).steps_of(expressions)[0]


def test_a_rule_is_read_as_the_kernel_wrote_it():
    target = Target(0x0AF40001, 0x0AF40001, None)
    assert steps(RULES[0]) == (rules.Test(DADDR, point(0x0A600001)), Dnat((target,)))
    assert steps(LOAD + COMPARE + expression("unheard-of"))[1] == Opaque("unheard-of: an expression nobody here knows")


def own_map(rows, width=8, flags=9):
    """Numbers that lead to an address and, where it is wide enough, a port."""
    rows = [
        (at.to_bytes(4, "little"), (bytes((10, 244, 0, to)) + bytes((0, to)) + bytes(10))[:width]) for at, to in rows
    ]
    elements = b"".join(attribute(1, value(1, key) + value(2, data)) for key, data in rows)
    return KernelSet("", flags, 4, tuple(listed_elements(elements)))


OWN = {
    "__map0": own_map([(0, 1), (1, 2)]), "__map1": own_map([(0, 3), (1, 4), (2, 5)]), "__map2": own_map([(0, 6)]),
    "__map3": own_map([(0, 7), (1, 8)], width=4), "__map4": own_map([(0, 0), (1, 0)]), "__map5": own_map([]),
    "__map6": own_map([(0, 9), (1, 9)], flags=0x19), "__map7": own_map([(0, 9), (1, 9)], flags=8),
}  # fmt: skip


def sets(name):
    return OWN.get(name, KNOWN)


def own_lookup(name):
    return expression("lookup", attribute(1, name.encode() + b"\0"), number(2, 1), number(3, 1), number(5, 0))


def chance(count):
    return expression("numgen", number(1, 1), number(2, count), number(3, 0), number(4, 0))


PORT_NAT = expression("nat", number(1, 1), number(2, 2), number(3, 1), number(4, 1), number(5, 9), number(6, 9))


def test_the_maps_of_two_services_are_one_pattern_and_each_says_what_is_in_it():
    wiring = Wiring(4, sets)
    ends = [wiring.steps_of(chance(2) + own_lookup(name) + PORT_NAT)[0] for name in ("__map0", "__map1", "__map2")]
    target = {at: Target(0x0AF40000 + at, 0x0AF40000 + at, at) for at in range(1, 7)}
    assert ends[0] == (Dnat((target[1], target[2])),)
    assert ends[1] == (Dnat((target[3], target[4], target[5])),)
    assert ends[2] == (rules.Maybe(), Dnat((target[6],))), "a number may have no row"
    assert len(wiring._patterns) == 1


@pytest.mark.parametrize("nat", [NAT, PORT_NAT], ids=["address", "address and port"])
@pytest.mark.parametrize("known", list(OWN))
def test_a_map_of_another_kind_is_not_taken_for_the_patterns(known, nat):
    wiring = Wiring(4, sets)
    for name in (known, *OWN):
        expressions = chance(2) + own_lookup(name) + nat
        assert str(wiring.steps_of(expressions)) == str(Wiring(4, sets).steps_of(expressions))


FOUR = st.integers(0, 3).map(lambda at: bytes((10, 96, 0, at)))
AT = st.sampled_from([12, 16, 9])
"""The source, the destination, the protocol among other bytes."""


@st.composite
def of_few_patterns(draw):
    """Rules that differ in constants mostly, used in every way in which one can be."""
    load = expression(
        "payload", number(1, 1), number(2, draw(st.sampled_from([1, 2]))), number(3, draw(AT)), number(4, 4)
    )
    compare = expression("cmp", number(1, 1), number(2, draw(st.integers(0, 5))), value(3, draw(FOUR)))
    to = expression("immediate", number(1, 1), value(2, draw(FOUR)))
    last = expression("immediate", number(1, draw(st.sampled_from([1, 2]))), value(2, draw(FOUR)))
    port = draw(st.sampled_from([b"", number(5, 9)]))
    nat = expression("nat", number(1, 1), number(2, 2), number(3, 1), number(4, draw(st.sampled_from([1, 2]))), port)
    to_port = expression("immediate", number(1, 9), value(2, draw(FOUR)))
    counted = counter(draw(st.integers(0, 2)))
    end = jump(draw(st.sampled_from([-1, -2, -3, -4, -5])), draw(st.sampled_from([b"", b"a", b"b", b"long", b"x\0y"])))
    parts = [load, compare, to, last, to_port, nat, expression("redir", number(1, 9)), LOOKUP, counted, end]
    by_map = own_lookup(draw(st.sampled_from(list(OWN))))
    to_one = (
        chance(draw(st.integers(1, 3))) + by_map + draw(st.sampled_from([NAT, PORT_NAT, PORT_NAT + end, by_map + NAT]))
    )
    parts += [by_map, chance(2), PORT_NAT]
    chosen = st.sampled_from([b"", compare, nat, end, compare + counted + end, to_one, load + compare + to_one])
    return b"".join([*draw(st.lists(st.sampled_from(parts), max_size=6)), draw(chosen)])


@settings(max_examples=400)
@given(st.lists(of_few_patterns(), min_size=2, max_size=30))
def test_a_rule_whose_pattern_is_known_comes_down_to_what_it_does_alone(rules_of_one_table):
    wiring = Wiring(4, sets)
    for expressions in rules_of_one_table:
        assert str(wiring.steps_of(expressions)) == str(Wiring(4, sets).steps_of(expressions))


def test_the_rules_of_two_services_are_one_pattern():
    """Whose constants are put in their places: the destination compared with, and where to."""
    wiring = Wiring(4, lambda name: KNOWN)
    first, other = RULES[0], RULES[0].replace(bytes((10, 96, 0, 1)), b"abcd").replace(bytes((10, 244, 0, 1)), b"efgh")
    target = Target(0x65666768, 0x65666768, None)
    wiring.steps_of(first)
    assert wiring.steps_of(other)[0] == (rules.Test(DADDR, point(0x61626364)), Dnat((target,)))


def test_a_jump_is_one_pattern_whatever_was_counted_and_wherever_it_leads():
    wiring = Wiring(4, lambda name: KNOWN)
    for count, chain in enumerate([b"KUBE-SVC-A", b"KUBE-SVC-BB", b"\xff"]):
        found = wiring.steps_of(LOAD + COMPARE + counter(count) + jump(-3, chain))[0]
        assert found[1:] == (rules.Verdict("jump", chain.decode(errors="surrogateescape")),)
    assert len(wiring._patterns) == 1
    assert wiring.steps_of(LOAD + COMPARE + counter(0) + jump(-4, b"a"))[0][1] == rules.Verdict("goto", "a")


@settings(max_examples=400)
@given(st.lists(of_few_patterns(), min_size=2, max_size=30))
def test_rules_of_one_digest_come_down_to_the_same(given_rules):
    known = {}
    for expressions in given_rules:
        if name := lasting_digest(expressions):
            alone = str(Wiring(4, lambda name: KNOWN).steps_of(expressions))
            assert known.setdefault(name, alone) == alone
        else:
            assert b"lookup" in expressions


def test_a_digest_leaves_out_what_was_counted_and_nothing_else():
    one, other, elsewhere = (
        LOAD + counter(count) + jump(-3, chain) for count, chain in ((1, b"a"), (2, b"a"), (1, b"b"))
    )
    assert lasting_digest(one) == lasting_digest(other) != lasting_digest(elsewhere)
    assert lasting_digest(LOAD + jump(-3, b"a")) != lasting_digest(one)


def told_of(kind, table, chain, handle):
    """About a rule without a word to it but its handle, which jumps to a chain that is called so."""
    texts = attribute(1, table + b"\0") + attribute(2, chain + b"\0")
    jumps = attribute(4, LOAD + jump(-3, b"to-%d" % handle))
    return request(0xA00 | kind, 0, 7, bytes((2, 0, 0, 9)) + texts + attribute(3, handle.to_bytes(8, "big")) + jumps)


TOLD = [
    *(told_of(kind, b"t", chain, handle) for kind in (6, 8) for chain in (b"a", b"ab") for handle in (1, 2)),
    told_of(6, b"u", b"a", 1),
    request(0xA0F, 0, 0, bytes(4) + attribute(1, (2).to_bytes(4, "big"))), request(0xA06, 0, 0, b"?" * 4),
]  # fmt: skip


class Rules:
    """Two tables; chain a of table t has had rule 1. ``read``: which chains were read since."""

    def __init__(self):
        self.read = []

    def tables(self):
        return [bytes((2, 0, 0, 0)) + attribute(1, name) for name in (b"t\0", b"u\0")]

    def chains(self):
        return iter(())

    sets = chains

    def every_rule(self, family, table):
        return iter([told_of(6, b"t", b"a", 1)[16:]] if table == "t" else [])

    def elements(self, family, table, name):
        raise AssertionError("there is no set")

    def numbered(self, family, table, wanted):
        return iter(())

    def rules(self, family, table, chain):
        self.read.append((table, chain))
        return iter(())


def heard(data, hear):
    """What is read after ``data`` was heard, and of which generation it is."""
    source = Rules()
    mirror = Mirror(source)
    mirror.begin(1)
    hear(mirror, data)
    mirror.refresh()
    return mirror.generation, sorted(source.read)


def one_by_one(mirror, data):
    for message in messages(data):
        mirror.hear(message)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(TOLD), max_size=12), st.integers(0, 30))
def test_messages_heard_at_once_are_those_heard_one_by_one(chosen, cut):
    data = b"".join(chosen)
    data = data[: max(0, len(data) - cut)]
    try:
        expected = heard(data, one_by_one)
    except Malformed:
        with pytest.raises(Malformed):
            heard(data, Mirror.hear_all)
    else:
        assert heard(data, Mirror.hear_all) == expected


def test_a_chain_is_read_for_a_rule_that_it_never_had_and_for_no_other():
    again = b"".join(told_of(kind, b"t", b"a", 1) for kind in (8, 6) * 3)
    assert heard(again, Mirror.hear_all) == (1, [])
    for new in (told_of(6, b"t", b"a", 2), told_of(6, b"t", b"b", 1), told_of(6, b"u", b"a", 1)):
        table, chain = ("u", "a") if b"u" in new[20:28] else ("t", "b" if b"b" in new[28:36] else "a")
        assert heard(again + new + again, Mirror.hear_all) == (1, [(table, chain)])


def damaged(whole):
    at = st.integers(0, len(whole) - 1)
    return st.one_of(
        at.map(lambda cut: whole[:cut]),
        st.tuples(at, st.integers(1, 255)).map(
            lambda hit: whole[: hit[0]] + bytes((whole[hit[0]] ^ hit[1],)) + whole[hit[0] + 1 :]
        ),
        st.binary(max_size=80),
    )


@settings(max_examples=1500)
@given(st.sampled_from(RULES).flatmap(damaged), damaged(ROW))
def test_a_damaged_rule_or_map_is_steps_all_the_same(expressions, row):
    found = KNOWN
    with contextlib.suppress(Malformed, NotUnderstood):
        found = KernelSet("m", 8, 4, tuple(listed_elements(row)))
    assert isinstance(steps(expressions, found), tuple)
    with contextlib.suppress(Malformed):
        rewrites(expressions, 4)


@settings(max_examples=1000)
@given(st.integers(1, len(RULES[0]) - 1))
def test_a_rule_that_is_cut_short_never_reads_as_one_that_sends_nowhere_for_certain(cut):
    left = steps(RULES[0][:cut])
    whole = [len(LOAD), len(LOAD + COMPARE), len(LOAD + COMPARE + TO)]
    assert cut in whole or any(isinstance(step, Opaque) for step in left)


@settings(max_examples=1000)
@given(st.binary(max_size=120), st.booleans())
def test_bytes_of_any_kind_are_malformed_or_nothing(data, is_any):
    for read in (
        rule_of,
        lambda raw: set_of(raw, ()),
        lambda raw: list(messages(raw)),
        lambda raw: messages(ctnetlink.not_elsewhere(raw, 2, frozenset([b"\n\x01\x01\x01"]))),
        lambda raw: ctnetlink.tracked(raw, None if is_any else frozenset([b"\n\x01\x01\x01"])),
    ):
        with contextlib.suppress(Malformed, NotUnderstood):
            read(data)


def entry(answered_by, head=bytes.fromhex("34000280 14000180 08000100")):
    return request(0x100, 2, 1, bytes((2, 0, 0, 0)) + bytes(52) + head + bytes(answered_by) + bytes(20))


def test_of_a_datagram_of_entries_those_that_others_answer_are_left_out_and_nothing_else():
    ours, theirs, odd = entry((10, 1, 1, 1)), entry((10, 2, 2, 2)), entry((10, 2, 2, 2), bytes(12))
    done = request(3, 2, 1, bytes(4))
    wanted = frozenset([bytes((10, 1, 1, 1))])
    assert ctnetlink.not_elsewhere(theirs + ours + theirs + odd + theirs + done, 2, wanted) == ours + odd + done


def apart(data, wanted):
    """The same, message by message."""
    kept, rest = b"", data
    while len(rest) >= 16 and 88 <= int.from_bytes(rest[:4], "little") <= len(rest):
        length = int.from_bytes(rest[:4], "little")
        one, rest = rest[: (length + 3) // 4 * 4], rest[(length + 3) // 4 * 4 :]
        is_usual = one[4:8] == b"\0\1\2\0" and one[72:84] == bytes.fromhex("34000280 14000180 08000100")
        kept += b"" if is_usual and one[84:88] not in wanted else one
    return kept + rest


MESSAGES = [
    entry((10, 1, 1, 1)), entry((10, 2, 2, 2)), entry((10, 2, 2, 2)) + bytes(4), entry((10, 2, 2, 2), bytes(12)),
    entry((10, 2, 2, 2))[:4] + b"\0\1\x12\0" + entry((10, 2, 2, 2))[8:],
    request(0x100, 2, 1, entry((10, 2, 2, 2))[16:] + bytes(1)),
    request(3, 2, 1, bytes(4)), request(2, 0, 1, bytes(100)),
]  # fmt: skip


@settings(max_examples=500)
@given(st.lists(st.sampled_from(MESSAGES), max_size=9), st.integers(0, 200))
def test_of_any_messages_however_cut_short_the_same_are_left_out_as_one_by_one(chosen, cut):
    data = b"".join(chosen)
    data = data[: max(0, len(data) - cut)]
    wanted = frozenset([bytes((10, 1, 1, 1))])
    assert ctnetlink.not_elsewhere(data, 2, wanted) == apart(data, wanted)
