"""Chains kept by what this machine's kernel tells of each rule, against what it says when they are read anew."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.dataplane.frontends import Asking
from tidegate.dataplane.nftables import table
from tidegate.dataplane.nftables.kept import key_of
from tidegate.dataplane.nftables.rule import rule_of
from tidegate.observers.linux import commands
from tidegate.observers.linux.commands import CommandFailed
from tidegate.observers.linux.following import Followed
from tidegate.observers.linux.generation import Generations

INSIDE = "TIDEGATE_TEST_KEPT_CHAINS"
APART = ["unshare", "--net", "--map-root-user"]
EXAMPLES = int(os.environ.get("TIDEGATE_EXAMPLES", "300")) // 5
NAMES = ("PREROUTING", "KUBE-SERVICES", "KUBE-NODEPORTS")
SOME = """*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
-A PREROUTING -j KUBE-SERVICES
-A PREROUTING -p tcp -j KUBE-NODEPORTS
-A KUBE-SERVICES -d 10.96.0.1/32 -p tcp -m tcp --dport 80 -j KUBE-NODEPORTS
-A KUBE-SERVICES -d 10.96.0.2/32 -j RETURN
-A KUBE-NODEPORTS -p tcp -m tcp --dport 30080 -j DNAT --to-destination 10.244.0.1:8080
COMMIT
"""

pytestmark = pytest.mark.realtime
inside = pytest.mark.skipif(not os.environ.get(INSIDE), reason="played in a network namespace of its own")


@pytest.mark.skipif(bool(os.environ.get(INSIDE)), reason="we are inside it already")
def test_chains_that_are_kept_are_the_kernels_in_a_network_namespace_of_their_own():
    if absent := [
        tool for tool in ("unshare", "nft", "iptables-nft", "iptables-nft-restore") if not shutil.which(tool)
    ]:
        pytest.skip(f"no {', '.join(absent)} (Debian: util-linux, nftables, iptables)")
    if subprocess.run([*APART, "nft", "list", "ruleset"], capture_output=True).returncode:
        pytest.skip("this machine lets us make no network namespace with rules of its own")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__]
    ran = subprocess.run(
        [*APART, *command], env={**os.environ, INSIDE: "1"}, capture_output=True, text=True, timeout=150
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "1 skipped" in ran.stdout, ran.stdout


@pytest.fixture(scope="module")
def followed():
    """Every chain is long enough to be kept here."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(table, "LONG_MIN", 1)
        made = Followed(Generations())
        yield made
        made.close()


def restored(lines):
    return "\n".join(["*nat", *lines, "COMMIT", ""])


def as_iptables(rule):
    return f"-d 10.96.0.{rule}/32 -p tcp -m tcp --dport 80 -j {'RETURN' if rule % 2 else 'ACCEPT'}"


def as_nft(rule):
    return f"ip daddr 10.96.0.{rule} counter {'return' if rule % 2 else 'accept'}"


rules, chains, places = st.integers(0, 5), st.sampled_from(NAMES), st.integers(0, 9)
one_of_iptables = st.builds(
    lambda verb, name, rule, at: {
        "A": ["-A", name, *as_iptables(rule).split()],
        "I": ["-I", name, str(at + 1), *as_iptables(rule).split()],
        "R": ["-R", name, str(at + 1), *as_iptables(rule).split()],
        "D": ["-D", name, str(at + 1)],
    }[verb],
    st.sampled_from("AIRD"), chains, rules, places,
)  # fmt: skip
line = st.builds(
    lambda verb, name, rule, at: {
        "A": f"-A {name} {as_iptables(rule)}",
        "I": f"-I {name} {at + 1} {as_iptables(rule)}",
        "D": f"-D {name} {at + 1}",
    }[verb],
    st.sampled_from("AAID"), chains, rules, places,
)  # fmt: skip
at_once = st.builds(
    lambda flushed, lines: [*(f":{name} - [0:0]" for name in flushed if name != "PREROUTING"), *lines],
    st.lists(chains, unique=True),
    st.lists(line, min_size=1, max_size=6),
)
by_handle = st.lists(
    st.tuples(st.sampled_from(["add", "insert", "replace", "delete", "flush"]), chains, rules, st.none() | places),
    min_size=1,
    max_size=5,
)
transactions = st.lists(
    st.one_of(
        st.tuples(st.just("iptables"), one_of_iptables),
        st.tuples(st.just("restore"), at_once),
        st.tuples(st.just("nft"), by_handle),
    ),
    min_size=1,
    max_size=5,
)


def mirrored(followed):
    return followed._mirror._tables[2, "nat"]


def fresh(followed, name):
    bodies = followed._questions.rules(2, "nat", name)
    return [(rule.handle, key_of(rule)) for rule in map(rule_of, bodies)]


def play(followed, kind, commanded):
    """Not every transaction is one that the kernel takes."""
    with contextlib.suppress(CommandFailed):
        if kind == "iptables":
            commands.output("iptables-nft", "-t", "nat", *commanded)
        elif kind == "restore":
            commands.output("iptables-nft-restore", "--noflush", text=restored(commanded))
        else:
            commands.output("nft", "-f", "-", text="".join(scripted(followed, *one) for one in commanded))


def scripted(followed, verb, name, rule, at):
    """A rule is named by its handle, also by one that the same transaction takes away before."""
    handles = [handle for handle, _ in fresh(followed, name)]
    handle = handles[at % len(handles)] if at is not None and handles else 0
    if verb == "flush":
        return f"flush chain ip nat {name}\n"
    if verb in ("replace", "delete"):
        body = as_nft(rule) if verb == "replace" else ""
        return f"{verb} rule ip nat {name} handle {handle} {body}\n" if handle else ""
    return f"{verb} rule ip nat {name} " + (f"position {handle} " if handle else "") + f"{as_nft(rule)}\n"


def same(followed):
    """How many chains are kept after what was told; each is the kernel's."""
    count = 0
    for name in NAMES:
        kept = mirrored(followed)._kept.get(name)
        if kept is not None and kept.is_current:
            count += 1
            assert list(kept.order.items()) == fresh(followed, name), name
    return count


@inside
@settings(max_examples=EXAMPLES, deadline=None)
@given(transactions)
def test_after_each_of_random_transactions_what_is_kept_is_what_the_kernel_has(followed, played):
    commands.output("iptables-nft-restore", text=SOME)
    followed.facts(Asking())
    assert same(followed) == len(NAMES)
    for kind, commanded in played:
        play(followed, kind, commanded)
        followed.hear()
        same(followed)
        followed.facts(Asking())
        assert [name for name in NAMES if fresh(followed, name)] == [
            name for name in NAMES if name in mirrored(followed)._kept and mirrored(followed)._kept[name].order
        ]


@inside
def test_what_kube_proxy_writes_and_single_rules_that_come_are_never_read_again(followed):
    commands.output("iptables-nft-restore", text=SOME)
    followed.facts(Asking())
    for order in ((1, 2, 3, 4), (4, 1, 3), (3, 2, 1, 4, 5)):
        lines = [":KUBE-SERVICES - [0:0]", *(f"-A KUBE-SERVICES {as_iptables(rule)}" for rule in order)]
        commands.output("iptables-nft-restore", "--noflush", text=restored(lines))
        followed.hear()
        assert same(followed) == len(NAMES)
    for single in ("-A KUBE-SERVICES", "-I KUBE-SERVICES", "-I KUBE-SERVICES 3", "-R KUBE-SERVICES 2"):
        commands.output("iptables-nft", "-t", "nat", *f"{single} {as_iptables(5)}".split())
        followed.hear()
        assert same(followed) == len(NAMES)
    commands.output("iptables-nft", "-t", "nat", "-D", "KUBE-SERVICES", "3")
    followed.hear()
    assert same(followed) == len(NAMES)


@inside
def test_one_that_the_kernel_puts_first_behind_a_rule_that_went_is_not_taken_for_the_last(followed):
    commands.output("iptables-nft-restore", text=SOME)
    followed.facts(Asking())
    handle, name = fresh(followed, "KUBE-SERVICES")[0][0], "rule ip nat KUBE-SERVICES"
    text = f"delete {name} handle {handle}\nadd {name} {as_nft(1)}\nadd {name} position {handle} {as_nft(2)}\n"
    commands.output("nft", "-f", "-", text=text)
    followed.hear()
    assert same(followed) == len(NAMES) - 1
