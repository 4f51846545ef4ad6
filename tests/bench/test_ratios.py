"""Tidegate beside sleep-15, run by run: what counts as reached."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bench.ratios import Ratio, summary

WON = Ratio(
    sleep_seconds=17.0,
    gate_seconds=3.4,
    sleep_excess=62.0,
    gate_excess=7.0,
    dropped=0,
    verified=True,
    overheads=(0.1, 0.2),
)


def test_a_run_is_won_when_it_is_fast_lean_lossless_and_verified():
    assert WON.speedup == pytest.approx(5.0)
    assert WON.excess_share == pytest.approx(7 / 62)
    assert WON.is_won


@pytest.mark.parametrize(
    "change",
    [
        {"gate_seconds": 4.3},
        {"gate_excess": 12.5},
        {"dropped": 1},
        {"verified": False},
        {"invalid": "too few requests"},
        {"gate_seconds": 0.0},
        {"sleep_excess": 0.0},
    ],
)
def test_a_run_that_misses_one_of_them_is_not_won(change):
    assert not replace(WON, **change).is_won


def test_nine_of_ten_runs_are_enough_and_eight_are_not():
    lost = replace(WON, gate_seconds=5.0)
    assert summary([WON] * 9 + [lost])[0].is_met
    assert not summary([WON] * 8 + [lost] * 2)[0].is_met


def test_one_lost_request_in_any_run_is_a_miss_of_its_own():
    figures = {one.name: one for one in summary([WON] * 9 + [replace(WON, dropped=1)])}
    assert figures["runs that reach all of it"].is_met
    assert figures["requests dropped by tidegate, all runs"].is_met is False
