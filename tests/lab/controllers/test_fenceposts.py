"""Rounding of surge and unavailable, with the table of the real controller's own tests."""

from __future__ import annotations

import pytest

from tidegate.lab.controllers.fenceposts import Fenceposts, fenceposts, resolve, scaled

from .controller_world import deployment


@pytest.mark.parametrize(
    ("surge", "unavailable", "desired", "expected"),
    [
        ("0%", "0%", 0, (0, 1)),
        ("39%", "39%", 10, (4, 3)),
        ("55%", "14%", 10, (6, 1)),
        (5, 1, 7, (5, 1)),
        ("25%", "25%", 4, (1, 1)),
        ("25%", "25%", 3, (1, 0)),
        ("25%", "25%", 1, (1, 0)),
        (0, "25%", 3, (0, 1)),
        (1, 0, 3, (1, 0)),
        (None, None, 3, (0, 1)),
    ],
)
def test_surge_rounds_up_and_unavailable_down_and_both_zero_leaves_one(surge, unavailable, desired, expected):
    assert resolve(surge, unavailable, desired) == Fenceposts(*expected)


def test_text_that_is_no_percentage_is_an_error():
    with pytest.raises(ValueError, match="oops"):
        scaled("oops", 10, up=True)


def test_unavailable_never_exceeds_the_replicas_and_recreate_allows_nothing():
    many = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 10}}
    assert fenceposts(deployment(3, strategy=many)) == Fenceposts(0, 3)
    assert fenceposts(deployment(0, strategy=many)) == Fenceposts(0, 0)
    assert fenceposts(deployment(3, strategy={"type": "Recreate"})) == Fenceposts(0, 0)
