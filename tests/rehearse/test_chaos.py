"""Whatever breaks, a verified drain has lost nothing."""

from __future__ import annotations

from collections import Counter

import pytest

from tidegate.rehearse import chaos

SEEDS = range(20, 32)


@pytest.fixture(scope="module")
def outcomes() -> list[chaos.Outcome]:
    return [chaos.play(seed, shuffle=seed % 2 == 1) for seed in SEEDS]


def test_no_verified_drain_lost_a_request(outcomes):
    assert not [(one.seed, one.false_verified) for one in outcomes if one.false_verified]
    assert not [(one.seed, one.unexplained) for one in outcomes if one.unexplained]


def test_nothing_in_the_kernels_journal_contradicts_a_verified_drain(outcomes):
    assert not [(one.seed, one.contradictions) for one in outcomes if one.contradictions]


def test_every_update_ends_whatever_broke(outcomes):
    assert not [(one.seed, one.run.invalid) for one in outcomes if one.run.invalid]


def test_the_faults_have_teeth(outcomes):
    results = sum((Counter(one.results) for one in outcomes), Counter())
    assert results["verified"] > results["bypassed"] > 0
    assert sum(one.lost for one in outcomes) > 0


def test_the_same_seed_breaks_the_same_things(outcomes):
    assert chaos.play(SEEDS[0], shuffle=SEEDS[0] % 2 == 1).digest == outcomes[0].digest
