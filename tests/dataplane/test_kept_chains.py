"""A chain kept by what the kernel tells of each rule, against a kernel that tells it as nf_tables_api.c does.

Which lists rules are in while a commit is told, and what is said of their places, is written here after
``nf_tables_newrule``, ``nf_tables_delrule``, ``nf_tables_commit`` and ``nf_tables_rule_notify``; the real one is asked
in ``tests/observers/test_kept_chains.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from tidegate.dataplane import rules
from tidegate.dataplane.netlink import attribute, name_attribute
from tidegate.dataplane.nftables import kept as kept_chains
from tidegate.dataplane.nftables.ends import Named, id_of
from tidegate.dataplane.nftables.kept import KeptChain, Unplaced, key_of
from tidegate.dataplane.nftables.rule import rule_of
from tidegate.dataplane.rules import DADDR, Maybe, Opaque, Rule, Verdict, point

HEAD = bytes((2, 0, 0, 0)) + name_attribute(1, "nat") + name_attribute(2, "KUBE-SERVICES")
APPEND, CREATE = 0x800, 0x400
MEANINGS = 6


def told(handle, meaning, position=0):
    """The body of a message about a rule; a ``meaning`` of 5 is one that looks something up."""
    body = HEAD + attribute(3, handle.to_bytes(8, "big"))
    if position:
        body += attribute(6, position.to_bytes(8, "big"))
    name = b"lookup\0" if meaning == 5 else b"rule%d\0" % meaning
    return body + attribute(4 | 0x8000, attribute(1 | 0x8000, attribute(1, name)))


def meaning_of(raw):
    return int(raw.expressions.partition(b"rule")[2][:1])


def learn(family, raw):
    """Rule 0 does nothing, rule 4 is not understood."""
    number = meaning_of(raw)
    if number == 4:
        return Rule("table ip nat, chain KUBE-SERVICES", (Opaque("odd"),))
    return Rule(f"rule {number}", (rules.Test(DADDR, point(number)), Verdict("jump", f"C{number}"))) if number else None


@dataclass(eq=False)
class Standing:
    handle: int
    meaning: int
    is_going: bool = False


class Kernel:
    """One chain. ``is_old``: before Linux 5.15 each rule but the first was told with the one before it, and no flags;
    ``is_new_told_first``: of a replacement, before Linux 6.6."""

    def __init__(self, is_old=False, is_new_told_first=False):
        self.rules, self.made = [], 0
        self.is_old, self.is_new_told_first = is_old, is_new_told_first

    def commit(self, commands):
        """What is told of these commands; those that the kernel refuses are left out."""
        transaction = [one for command in commands for one in getattr(self, command[0])(*command[1:])]
        heard = []
        for kind, rule, flags in transaction:
            if kind == "gone":
                self.rules.remove(rule)
                heard.append((False, 0, told(rule.handle, rule.meaning)))
                continue
            at = self.rules.index(rule)
            is_placed = at and (self.is_old or at < len(self.rules) - 1)
            position = self.rules[at - 1].handle if is_placed else 0
            heard.append((True, 0 if self.is_old else flags, told(rule.handle, rule.meaning, position)))
        return heard

    def find(self, which):
        """Rules that this transaction takes away can still be named."""
        return self.rules[which % len(self.rules)] if self.rules else None

    def _made(self, meaning):
        self.made += 1
        return Standing(self.made, meaning)

    def append(self, meaning):
        self.rules.append(rule := self._made(meaning))
        return [("new", rule, APPEND | CREATE)]

    def prepend(self, meaning):
        self.rules.insert(0, rule := self._made(meaning))
        return [("new", rule, CREATE)]

    def put_behind(self, meaning, which):
        if (other := self.find(which)) is None:
            return []
        self.rules.insert(self.rules.index(other) + 1, rule := self._made(meaning))
        return [("new", rule, APPEND | CREATE)]

    def put_before(self, meaning, which):
        if (other := self.find(which)) is None:
            return []
        self.rules.insert(self.rules.index(other), rule := self._made(meaning))
        return [("new", rule, CREATE)]

    def replace(self, meaning, which):
        other = self.find(which)
        if other is None or other.is_going:
            return []
        other.is_going = True
        self.rules.insert(self.rules.index(other), rule := Standing(other.handle, meaning))
        both = [("gone", other, 0), ("new", rule, APPEND | CREATE)]
        return both[::-1] if self.is_new_told_first else both

    def delete(self, which):
        other = self.find(which)
        if other is None or other.is_going:
            return []
        other.is_going = True
        return [("gone", other, 0)]

    def flush(self):
        going = [rule for rule in self.rules if not rule.is_going]
        for rule in going:
            rule.is_going = True
        return [("gone", rule, 0) for rule in going]

    def dump(self):
        return [rule_of(told(rule.handle, rule.meaning)) for rule in self.rules]


def hear(kept, heard):
    """As a mirror does; whether the chain is still known."""
    for is_new, flags, body in heard:
        if kept.is_current:
            try:
                kept.hear(is_new, flags, body, len(HEAD))
            except Unplaced:
                kept.stop()
    kept.end_commit()
    return kept.is_current


def read(kernel):
    kept = KeptChain(learn, (4,))
    return kept if kept.read(kernel.dump(), is_current=True) else None


def order(kernel):
    return [(rule.handle, key_of(rule)) for rule in kernel.dump()]


def rewrite(count):
    return [("flush",), *[("append", number % 4) for number in range(count)]]


meanings, places = st.integers(0, MEANINGS - 1), st.integers(0, 20)
commands = st.one_of(
    st.tuples(st.sampled_from(["append", "append", "prepend"]), meanings),
    st.tuples(st.sampled_from(["put_behind", "put_before", "replace"]), meanings, places),
    st.tuples(st.just("delete"), places),
    st.just(("flush",)),
)
commits = st.lists(st.one_of(st.lists(commands, min_size=1, max_size=6), st.just(rewrite(4))), min_size=1, max_size=8)


@settings(max_examples=1000, deadline=None)
@given(commits, st.booleans(), st.booleans())
def test_a_chain_that_is_kept_is_the_kernels_rule_for_rule_or_is_read_again(commits, is_old, is_new_told_first):
    kernel = Kernel(is_old, is_new_told_first)
    kernel.commit(rewrite(4))
    kept = read(kernel)
    for commit in commits:
        if kept is None or not hear(kept, kernel.commit(commit)):
            event("read again")
            kept = read(kernel)
        else:
            event("kept")
        assert kept is None or list(kept.order.items()) == order(kernel)


@settings(max_examples=500, deadline=None)
@given(commits, st.integers(0, 7))
def test_a_chain_that_was_read_before_all_of_the_past_was_heard_is_right_once_it_was(commits, late):
    """What was read may be newer than what was told: rules that come are there already, rules that go are gone."""
    kernel = Kernel()
    pending = [kernel.commit(commit) for commit in [rewrite(4), *commits]]
    kept = read(kernel)
    for heard in pending[-late:] if late else []:
        if kept is None or not hear(kept, heard):
            return
    assert kept is None or list(kept.order.items()) == order(kernel)


@pytest.mark.parametrize("is_old", [False, True])
def test_a_chain_that_is_written_anew_is_never_read_again(is_old):
    kernel = Kernel(is_old)
    kernel.commit(rewrite(300))
    kept = read(kernel)
    for count in (300, 299, 3, 301):
        assert hear(kept, kernel.commit(rewrite(count)))
        assert list(kept.order.items()) == order(kernel)


@pytest.mark.parametrize("command", [("append", 1), ("prepend", 2), ("put_behind", 3, 1), ("put_before", 3, 2)])
def test_one_rule_that_comes_is_put_where_it_is(command):
    kernel = Kernel()
    kernel.commit(rewrite(5))
    kept = read(kernel)
    assert hear(kept, kernel.commit([command, ("delete", 3)]))
    assert list(kept.order.items()) == order(kernel)


def test_one_that_was_put_behind_a_rule_of_before_that_went_is_not_taken_for_the_last():
    """Linux 6.18 lets it be put there, and says nothing about its place: it is the first."""
    kernel = Kernel()
    kernel.commit([("append", 1), ("append", 2)])
    kept = read(kernel)
    assert not hear(kept, kernel.commit([("delete", 0), ("append", 3), ("put_behind", 3, 0)]))


def test_a_rule_that_looks_something_up_is_not_kept():
    kernel = Kernel()
    kernel.commit(rewrite(3))
    kept = read(kernel)
    assert not hear(kept, kernel.commit([("append", 5)]))
    assert read(kernel) is None


def test_more_rules_between_others_than_it_takes_to_read_the_chain_are_not_put_there_one_by_one():
    kernel = Kernel()
    kernel.commit(rewrite(5))
    kept = read(kernel)
    for _ in range(2):
        assert hear(kept, kernel.commit([("put_behind", 1, at) for at in range(kept_chains.INSERTED_MAX)]))
        assert list(kept.order.items()) == order(kernel)
    assert not hear(kept, kernel.commit([("put_behind", 1, at) for at in range(kept_chains.INSERTED_MAX + 1)]))


def test_what_a_packet_meets_in_a_chain_that_is_kept_is_in_the_kernels_order():
    kernel = Kernel()
    kernel.commit([("append", number) for number in (3, 0, 1, 2)])
    kept = read(kernel)
    hear(kept, kernel.commit([("prepend", 2), ("delete", 4)]))
    chain = kept.chain(4, "KUBE-SERVICES", "")
    assert [rule.where for rule in chain.rules] == ["rule 2", "rule 3", "rule 1"]
    anything = (None, None, None)
    assert [rule.where for rule in chain.near((point(3), None, point(80)))] == ["rule 3"]
    assert [rule.where for rule in chain.near(anything, Named({id_of("C1"), id_of("C2")}))] == ["rule 2", "rule 1"]
    assert chain.near(anything) == chain.rules


def test_a_rule_that_stands_twice_and_one_that_is_not_understood_are_met_at_each_place():
    kernel = Kernel()
    kernel.commit([("append", number) for number in (3, 1, 3)])
    kept = read(kernel)
    assert [rule.where for rule in kept.chain(4, "x", "").near((None, None, None))] == ["rule 3", "rule 1", "rule 3"]
    hear(kept, kernel.commit([("append", 4)]))
    assert kept.chain(4, "x", "").rules[-1].where == "table ip nat, chain KUBE-SERVICES, handle 4"


def test_what_rules_meant_that_went_long_ago_is_forgotten(monkeypatch):
    monkeypatch.setattr(kept_chains, "_FORGOTTEN_MIN", 0)
    kernel = Kernel()
    kernel.commit([("append", number) for number in (1, 2, 3)])
    kept = read(kernel)
    hear(kept, kernel.commit([("flush",), ("append", 1)]))
    assert [rule.where for rule in kept.chain(4, "x", "").rules] == ["rule 1"]
    assert len(kept._meanings[4].rules) == 1
    hear(kept, kernel.commit([("flush",), ("append", 2)]))
    assert [rule.where for rule in kept.chain(4, "x", "").rules] == ["rule 2"]


def test_a_rule_that_asks_more_than_an_address_is_not_left_out_where_nothing_is_known_of_the_packet():
    steps = (Maybe(), Verdict("goto", "C9"))
    kept = KeptChain(lambda family, raw: Rule("goto", steps), (4,))
    kept.read([rule_of(told(1, 1))], is_current=True)
    assert len(kept.chain(4, "x", "").near((None, None, None), Named(set()))) == 1


def test_no_rule_comes_behind_one_that_is_not_there_and_none_goes_that_is_not():
    kernel = Kernel()
    kernel.commit(rewrite(3))
    for strange in ((True, 0, told(9, 1, position=4)), (False, 0, told(4, 1))):
        kept = read(kernel)
        assert hear(kept, [(True, APPEND, told(4, 1)), (False, 0, told(4, 1))])
        assert not hear(kept, [strange])
