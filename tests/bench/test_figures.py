"""Figures of the benchmarks: what meets a target, how numbers are written."""

from __future__ import annotations

import pytest
from bench.figures import Figure, at_least, at_most, below, counted, holds, lines, number, percentile, verdict


def test_a_percentile_is_a_value_that_was_measured():
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert [percentile(values, share) for share in (0.0, 0.2, 0.5, 0.99, 1.0)] == [1.0, 1.0, 3.0, 5.0, 5.0]


def test_the_median_of_ten_is_the_fifth():
    assert percentile([float(value) for value in range(1, 11)], 0.5) == 5.0


def test_nothing_measured_has_percentile_zero():
    assert percentile([], 0.5) == 0.0


@pytest.mark.parametrize(
    ("figure", "expected"),
    [
        (at_least("rate", 702, "/s", 702), "PASS"),
        (at_least("rate", 701.9, "/s", 702), "FAIL"),
        (below("boot", 1.5, "s", 1.5), "FAIL"),
        (below("boot", 1.49, "s", 1.5), "PASS"),
        (at_most("dropped", 0, "", 0), "PASS"),
        (at_most("dropped", 1, "", 0), "FAIL"),
        (holds("the same digest", True), "PASS"),
        (holds("the same digest", False), "FAIL"),
        (Figure("memory", 12.0, "MiB"), ""),
    ],
)
def test_a_figure_is_held_against_its_target_and_the_border_counts_as_stated(figure, expected):
    assert verdict(figure) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"), (0.0123, "0.0123"), (0.5, "0.5"), (2.714, "2.71"), (17.06, "17.1"),
        (100, "100"), (43_512.4, "43,512"), (-2.5, "-2.5"), (20.0, "20"),
    ],
)  # fmt: skip
def test_numbers_are_written_with_three_digits(value, expected):
    assert number(value) == expected


def test_a_statement_has_no_number():
    assert lines("Title", [holds("the same digest", True, "3 of 3 seeds")]) == [
        "Title",
        "  PASS  the same digest  3 of 3 seeds",
    ]


def test_figures_are_aligned_under_their_title():
    found = lines("Title", [below("boot", 0.75, "s", 1.5, "p50 of 10"), Figure("memory", 33.6, "MiB")])
    assert found == [
        "Title",
        "  PASS  boot    0.75 s    < 1.5  p50 of 10",
        "        memory  33.6 MiB",
    ]


def test_results_are_counted_in_order_of_appearance():
    assert counted(["verified", "timed-out", "verified"]) == "2 verified, 1 timed-out"
    assert counted([]) == ""
