"""The walk asks for no chain that cannot matter to the question."""

from __future__ import annotations

import pytest

from tidegate.dataplane import rules
from tidegate.dataplane.rules import DADDR, Chain, Dnat, Maybe, Rule, Table, Target, Verdict, point
from tidegate.dataplane.tracer import paths

SERVICE, PODS = 0x0A600001, (0x0AF40001, 0x0AF40002)


def rule(*steps):
    return Rule("here", steps)


class Read(dict):
    """Chains, and which were asked for."""

    def __init__(self, *chains):
        super().__init__({chain.name: chain for chain in chains})
        self.asked = []

    def get(self, name, default=None):
        self.asked.append(name)
        return super().get(name, default)


def endpoints(*targets):
    return [Chain(f"end-{at}", [rule(Dnat((Target(pod, pod, 80),)))]) for at, pod in enumerate(targets)]


@pytest.mark.parametrize(("wanted", "asked"), [(0, ["service", "end-0"]), (1, ["service", "end-1"])])
def test_an_endpoint_that_chance_alone_leads_to_and_nobody_asks_about_is_not_looked_at(wanted, asked):
    """As iptables does it: a rule with a chance for each endpoint, and the last one without."""
    ways = [rule(Maybe(), Verdict("jump", "end-0")), rule(Verdict("jump", "end-1"))]
    base = Chain("in", [rule(rules.Test(DADDR, point(SERVICE)), Verdict("jump", "service"))], hook="prerouting")
    chains = Read(base, Chain("service", ways), *endpoints(*PODS))
    table = Table("ip nat", 4, chains, is_indexed=True, leading={"in", "service", f"end-{wanted}"})
    found = list(paths(table, lambda target: target.low == PODS[wanted]))
    assert Target(PODS[wanted], PODS[wanted], 80) in [target for path in found for target in path.targets]
    last = [] if wanted else ["end-1"]
    assert sorted(set(chains.asked)) == sorted({*asked, *last}), "the last is certain, and what comes after it is not"


def test_one_that_is_certain_still_hides_what_comes_after_it():
    ways = [rule(Verdict("jump", "end-0")), rule(Verdict("jump", "end-1"))]
    base = Chain("in", [rule(rules.Test(DADDR, point(SERVICE)), Verdict("jump", "service"))], hook="prerouting")
    chains = Read(base, Chain("service", ways), *endpoints(*PODS))
    table = Table("ip nat", 4, chains, is_indexed=True, leading={"in", "service", "end-1"})
    assert all(target.low != PODS[1] for path in paths(table, lambda target: True) for target in path.targets)
