"""The fence's invariant on every kind of proxy, and that its judge would notice."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from tidegate.cli import sim_fence
from tidegate.cli.sim import sim
from tidegate.lab.network.machine import missing
from tidegate.lab.proxy.shapes import SHAPES
from tidegate.model.epoch import Epoch
from tidegate.rehearse.fence.judge import Cut, Node, Sight, Signs, judge, number_of
from tidegate.rehearse.fence.kernelground import play_on_kernel
from tidegate.rehearse.fence.play import needs_second, play, row, tasks, violations
from tidegate.rehearse.fence.sampler import search

ONE = [name for name, shape in SHAPES.items() if not (needs_second(name) or shape.lists_anew)]
SEEDS = range(100, 104)
UNORDERED, TORN, RELISTED = (0, 8, 11), (1, 17, 33), (1, 2, 6)
"""Seeds in which it happens (5, 3 and some of the first 40): it is rare, as on real proxies."""


def played(shape, seeds=SEEDS):
    return [play(shape, seed) for seed in seeds]


@pytest.mark.parametrize("shape", SHAPES)
def test_no_kind_of_proxy_shows_the_epochs_it_is_believed_by_and_a_route_to_what_was_cut_before_them(shape):
    found = row(shape, ((one.seed, len(one.cuts), one.signs, one.hurts) for one in played(shape)))
    print(f"{shape}: seeds {SEEDS.start} to {SEEDS.stop - 1}: {found.signs}")
    assert found.violations == 0, found.failed
    assert found.sequences >= 200 and found.signs.unproven < found.signs.cuts / 100
    assert found.signs.absence and found.signs.synced, "too weak: nothing else would have been wrong"


@pytest.mark.parametrize("shape", ONE)
def test_a_fence_that_takes_an_epoch_too_early_is_caught(shape):
    broken = Signs()
    for one in played(shape):
        broken += judge(one.cuts, one.nodes, early=1)
    assert violations(shape, broken)


def test_where_order_is_not_given_one_epoch_breaks_the_invariant_and_two_do_not():
    total = Signs()
    for one in played("nft-1.30", UNORDERED):
        total += one.signs
    assert total.shown_first > 0
    assert total.shown_second == total.second == 0


def test_where_a_pass_may_be_torn_the_word_of_one_epoch_is_taken_back_and_that_of_two_is_not():
    total = Signs()
    for one in played("torn", TORN):
        total += one.signs
    assert total.first > 0
    assert total.second == 0


def test_after_a_new_list_an_epoch_stands_beside_a_route_and_nobody_who_looks_at_both_is_deceived():
    total = Signs()
    for one in played("nft-1.36-relist", RELISTED):
        total += one.signs
    assert total.shown_first > 0
    assert total.first == total.shown_second == 0


def test_the_same_seed_gives_the_same_sequences():
    one, again = play("torn", 7, 10), play("torn", 7, 10)
    assert (one.signs, one.cuts, one.nodes) == (again.signs, again.cuts, again.nodes)
    assert play("torn", 8, 10).cuts != one.cuts


# --- the judge ---

E = "10.0.0.1:80"


def sights(*tables):
    return Node([Sight(at, (number,), frozenset([E] if routed else [])) for at, number, routed in tables])


def judged(*tables, synced=(), cut=None, **options):
    node = sights(*tables)
    node.synced = list(synced)
    return judge([cut or Cut(E, 10.0, before=4, first=5, second=6, until=20.0)], [node], **options)


def test_a_table_with_the_epoch_and_a_route_breaks_the_invariant():
    assert judged((1, 4, True), (11, 5, True), (12, 5, False)).shown_first == 1
    assert judged((1, 4, True), (11, 4, True), (12, 5, False)).shown_first == 0


def test_a_route_after_no_route_at_the_epoch_is_a_word_taken_back():
    found = judged((1, 4, True), (11, 5, False), (12, 5, True), (13, 6, False))
    assert (found.first, found.second) == (1, 0)


def test_a_route_that_comes_late_makes_absence_a_lie_and_not_the_fence():
    found = judged((1, 4, False), (11, 4, True), (12, 5, False))
    assert (found.absence, found.first, found.shown_first) == (1, 0, 0)


def test_the_table_that_stood_at_the_cut_counts_and_what_came_after_the_next_addition_does_not():
    assert judged((1, 4, False), (11, 4, True)).absence == 1
    assert judged((1, 4, False), (21, 5, True)).absence == 0


def test_a_sync_that_ended_after_the_cut_and_left_the_route_is_a_lie_of_healthz():
    assert judged((1, 4, True), (11, 4, True), (12, 5, False), synced=(5.0, 11.0, 12.0)).synced == 1
    assert judged((1, 4, True), (11, 5, False), synced=(5.0, 11.0)).synced == 0


def test_an_epoch_that_was_never_shown_is_unproven():
    assert judged((1, 4, True)).unproven == 1


def test_the_earlier_of_two_families_counts():
    node = Node([Sight(1, (4, 4), frozenset()), Sight(11, (5, 4), frozenset([E])), Sight(12, (5, 5), frozenset())])
    assert judge([Cut(E, 10.0, 4, 5, None, 20.0)], [node]).shown_first == 0


@pytest.mark.parametrize("number", [0, 1, 65534, 65535, 561_022_877, 2**17 * 65535 - 1])
def test_the_judge_reads_epochs_by_itself(number):
    epoch = Epoch("main", number)
    assert number_of(str(epoch.endpoint4())) == number_of(str(epoch.endpoint6())) == number


# --- the command ---


def test_the_count_is_split_into_labs_and_none_is_lost():
    split = tasks(("torn",), 120, 3)
    assert [(seed, size) for _, seed, size in split] == [(3, 50), (4, 50), (5, 20)]


def test_a_violation_is_named_with_its_seed_and_fails_the_command():
    rows = [row("nft-1.36", [(3, 50, Signs(cuts=100, first=1, before=1, absence=2, synced=3), 9), (4, 50, Signs(), 9)])]
    assert "VIOLATED: nft-1.36 in seeds 3" in sim_fence._verdict(rows)
    assert "too weak" in sim_fence._verdict([row("torn", [(1, 50, Signs(cuts=100), 9)])])


def test_the_command_prints_a_row_for_each_kind():
    ran = CliRunner().invoke(sim, ["--fence", "20", "--jobs", "1", "-o", "json"])
    told = json.loads(ran.output)
    assert [one["shape"] for one in told["shapes"]] == list(SHAPES)
    assert all(one["sequences"] == 20 and one["violations"] == 0 for one in told["shapes"])
    assert ran.exit_code == (1 if any(one["weak"] for one in told["shapes"]) else 0)


# --- a kernel that is not ours ---


def test_a_sample_of_before_the_cut_says_nothing_and_one_that_outlasts_it_neither():
    samples = Node([
        Sight(9.0, (4,), frozenset(), ended=9.1), Sight(9.9, (4,), frozenset(), ended=10.1),
        Sight(12.0, (5,), frozenset(), ended=12.1), Sight(19.9, (5,), frozenset([E]), ended=20.1),
    ])  # fmt: skip
    found = judge([Cut(E, 10.0, before=4, first=5, until=20.0)], [samples])
    assert (found.tables, found.absence, found.first, found.shown_first) == (1, 0, 0, 0)


RULES = """
table ip kube-proxy {
  map service-ips { type ipv4_addr . inet_proto . inet_service : verdict
    elements = { 10.18.0.7 . tcp . 80 : goto service-ABC-web/echo/tcp/http } }
  chain service-ABC-web/echo/tcp/http {
    ip saddr != 10.17.0.0/16 ip daddr 10.18.0.7 tcp dport 80 jump mark-for-masquerade
    meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.17.1.2 . 8080, 1 : 10.17.1.3 . 8080 }
  }
  chain endpoint-DEF-web/echo/tcp/http__10.17.1.9/8080 { ip saddr 10.17.1.4 dnat to 10.17.1.4:8080 }
  chain service-FENCE { dnat ip to 198.19.255.1 . 65535 }
}
-A KUBE-SEP-XYZ -p tcp -m tcp -j DNAT --to-destination 10.17.1.5:8080
-A KUBE-SVC-XYZ -d 10.17.1.6/32 -p tcp --dport 80 -j KUBE-SEP-XYZ
"""


def test_the_judge_of_a_kernel_searches_translations_and_nothing_else():
    fence, routed = search(RULES)
    assert fence == ["198.19.255.1:65535"]
    assert routed == ["10.17.1.2:8080", "10.17.1.3:8080", "10.17.1.4:8080", "10.17.1.5:8080"]


@pytest.mark.realtime
@pytest.mark.skipif(bool(missing()), reason=missing())
def test_on_real_netfilter_the_fence_is_never_beside_a_route_to_what_was_cut_before_it():
    outcome, complaints = play_on_kernel("nft-1.36", 3, 10)
    assert not violations("nft-1.36", outcome.signs) and not complaints
    assert len(outcome.cuts) >= 10 and outcome.signs.cuts >= 18, "both nodes were sampled during the cuts"
    assert violations("nft-1.36", judge(outcome.cuts, outcome.nodes, early=2)), "the judge would have seen it"
